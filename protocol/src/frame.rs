//! Frames: a four-byte big-endian length and that many bytes of postcard. No I/O happens here.
//!
//! The length is checked before memory is taken; trailing bytes within a frame are an error.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Encodes `value` as one whole frame, prefix included.
///
/// # Errors
/// [`FrameError::TooLong`] when the body has more than `max` bytes, [`FrameError::Encode`] when the value cannot be encoded.
pub fn encode<T: Serialize>(value: &T, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; PREFIX_BYTES];
    frame = postcard::to_extend(value, frame).map_err(FrameError::Encode)?;
    let body = frame.len() - PREFIX_BYTES;
    let length = u32::try_from(body)
        .ok()
        .filter(|_| body <= max)
        .ok_or(FrameError::TooLong { length: body, max })?;
    frame[..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Reads the length of the body from the prefix.
///
/// # Errors
/// [`FrameError::TooLong`] when it is above `max`; nothing was allocated by then.
pub fn body_length(prefix: [u8; PREFIX_BYTES], max: usize) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > max {
        return Err(FrameError::TooLong { length, max });
    }
    Ok(length)
}

/// Decodes the body of one frame.
///
/// # Errors
/// [`FrameError::Decode`] for bytes that are no `T`, [`FrameError::Trailing`] when bytes are left over.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    let (value, rest) = postcard::take_from_bytes(body).map_err(FrameError::Decode)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing { bytes: rest.len() });
    }
    Ok(value)
}

/// Why bytes are no frame, or a value does not fit into one.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The body is longer than this place allows.
    #[error("a frame of {length} bytes, and at most {max} are allowed here")]
    TooLong {
        /// Bytes of the body.
        length: usize,
        /// Bound of this place.
        max: usize,
    },
    /// The value cannot be encoded.
    #[error("a value that cannot be encoded: {0}")]
    Encode(#[source] postcard::Error),
    /// The bytes are not what should stand here.
    #[error("a frame that cannot be decoded: {0}")]
    Decode(#[source] postcard::Error),
    /// More bytes than the value has.
    #[error("a frame with {bytes} bytes too many")]
    Trailing {
        /// Bytes left over.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_its_frame() {
        let frame = encode(&("robot", 7_u32), 64).expect("small enough");
        let prefix = frame[..PREFIX_BYTES].try_into().expect("four bytes");
        assert_eq!(body_length(prefix, 64).expect("in bounds"), frame.len() - PREFIX_BYTES);
        assert_eq!(
            decode::<(String, u32)>(&frame[PREFIX_BYTES..]).expect("whole"),
            ("robot".to_owned(), 7)
        );
    }

    #[test]
    fn length_is_refused_before_the_body_is_read() {
        assert!(matches!(
            body_length([0xff; PREFIX_BYTES], 1024),
            Err(FrameError::TooLong { max: 1024, .. })
        ));
        assert!(matches!(encode(&[0_u8; 32].as_slice(), 8), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn leftovers_and_torn_bodies_are_errors() {
        let frame = encode(&7_u8, 8).expect("fits");
        let mut longer = frame[PREFIX_BYTES..].to_vec();
        longer.push(0);
        assert!(matches!(decode::<u8>(&longer), Err(FrameError::Trailing { bytes: 1 })));
        assert!(matches!(decode::<u32>(&[]), Err(FrameError::Decode(_))));
    }
}
