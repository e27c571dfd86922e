//! A piece of a file on its way. On the wire it is what postcard makes of any bytes: a length and the bytes.

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};
use std::fmt;

/// Some bytes, moved as one run and not one by one.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk(pub Vec<u8>);

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.0.len())
    }
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Chunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Chunk;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Chunk, E> {
                Ok(Chunk(bytes.to_vec()))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Chunk, E> {
                Ok(Chunk(bytes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Chunk, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = items.next_element()? {
                    bytes.push(byte);
                }
                Ok(Chunk(bytes))
            }
        }

        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PREFIX_BYTES, decode, encode};

    #[test]
    fn a_chunk_stands_on_the_wire_as_a_list_of_bytes_does() {
        let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let frame = encode(&Chunk(bytes.clone()), 1 << 20).expect("fits");
        assert_eq!(frame, encode(&bytes, 1 << 20).expect("fits"));
        assert_eq!(decode::<Chunk>(&frame[PREFIX_BYTES..]).expect("whole").0, bytes);
        assert!(
            decode::<Chunk>(&frame[PREFIX_BYTES..frame.len() - 1]).is_err(),
            "a torn chunk"
        );
    }
}
