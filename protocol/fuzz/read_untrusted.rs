// Included by path from the fuzz targets and from the test that replays their corpora: what a stranger may hand to a person's
// program or to the coordinator before anything is known of him.

use dora_remote_protocol::{
    frame,
    hello::Hello,
    invite::{InviteToken, MAX_INVITE_ADDRESSES, MAX_INVITE_TEXT_BYTES},
    limits::MAX_HELLO_BYTES,
};

/// Reads a token as a file or a terminal gives it. What is read has one text alone, but for the white space around it.
pub(crate) fn read_token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<InviteToken>() {
        Ok(token) => {
            let again = token.to_string();
            assert_eq!(again, text.trim_ascii(), "one token has one text");
            assert!(again.len() <= MAX_INVITE_TEXT_BYTES);
            assert!((1..=MAX_INVITE_ADDRESSES).contains(&token.addresses().len()));
            assert!(
                !format!("{token:?}").contains(&format!("{:?}", token.seed().0)),
                "the seed is not shown"
            );
        }
        Err(error) => assert!(error.to_string().len() < 512, "an error does not repeat the text"),
    }
}

/// Reads the first frame of a connection, as the accepting side does.
pub(crate) fn read_hello(bytes: &[u8]) {
    let Some((prefix, rest)) = bytes.split_first_chunk::<{ frame::PREFIX_BYTES }>() else {
        return;
    };
    let Ok(length) = frame::body_length(*prefix, MAX_HELLO_BYTES) else {
        return;
    };
    assert!(length <= MAX_HELLO_BYTES);
    let Some(body) = rest.get(..length) else { return };
    let Ok(hello) = frame::decode::<Hello>(body) else { return };
    let again = frame::encode(&hello, usize::MAX).expect("what was decoded can be encoded");
    let back: Hello = frame::decode(&again[frame::PREFIX_BYTES..]).expect("what was encoded can be decoded");
    assert_eq!(back, hello);
    // Whatever it asks for, the answer is a version of ours or a refusal.
    if let Ok(version) = dora_remote_protocol::version::VersionRange::OURS.agree(hello.versions) {
        let ours = dora_remote_protocol::version::VersionRange::OURS;
        assert!(ours.oldest <= version && version <= ours.newest);
    }
}
