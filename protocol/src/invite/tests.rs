use super::*;
use proptest::prelude::*;

fn token() -> InviteToken {
    let identity = "spiffe://lab.example/daemon/robot-7".parse().expect("good");
    let addresses = vec!["coordinator.lab:6013".to_owned(), "[2001:db8::1]:6013".to_owned()];
    InviteToken::new(identity, addresses, [0xA5; 32], InviteSeed([0x5A; 32]), 1_800_000_000_000).expect("good")
}

fn tokens() -> impl Strategy<Value = InviteToken> {
    let address = "[a-z0-9][a-z0-9.-]{0,40}:[1-9][0-9]{0,3}";
    (
        ("[a-z0-9._-]{1,60}", 0..5_usize, "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
        prop::collection::vec(address, 1..=MAX_INVITE_ADDRESSES),
        any::<([u8; 32], [u8; 32])>(),
        any::<u64>(),
    )
        .prop_map(|((trust_domain, role, name), addresses, (root_hash, seed), expires)| {
            let identity = Identity {
                trust_domain: trust_domain.parse().expect("good"),
                role: Role::ALL[role],
                name: name.parse().expect("good"),
            };
            InviteToken::new(identity, addresses, root_hash, InviteSeed(seed), expires).expect("good")
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_token_survives_its_text(token in tokens()) {
        let text = token.to_string();
        prop_assert!(text.len() <= MAX_INVITE_TEXT_BYTES);
        prop_assert_eq!(text.parse::<InviteToken>(), Ok(token.clone()));
        prop_assert_eq!(format!("\n {text}\r\n").parse::<InviteToken>(), Ok(token));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(dri1-)?[a-z2-7]{0,80}", any in ".{0,40}") {
        let _ = text.parse::<InviteToken>();
        let _ = any.parse::<InviteToken>();
    }

    #[test]
    fn a_body_of_any_bytes_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = seal(&body).parse::<InviteToken>();
    }
}

/// A text with a good checksum around any body.
fn seal(body: &[u8]) -> String {
    let mut bytes = u16::try_from(body.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&crc32(&bytes).to_be_bytes());
    format!("dri1-{}", base32(&bytes))
}

#[test]
fn every_change_of_one_character_is_found() {
    let text = token().to_string();
    for at in 0..text.len() {
        for wrong in (0x20..0x7F_u8).map(char::from) {
            let mut changed = text.clone();
            changed.replace_range(at..=at, &wrong.to_string());
            assert!(changed == text || changed.parse::<InviteToken>().is_err(), "{wrong} at {at}");
        }
    }
}

#[test]
fn every_swap_of_neighbours_and_every_missing_or_doubled_character_is_found() {
    let text = token().to_string();
    for at in 1..text.len() {
        let mut swapped = text.clone().into_bytes();
        swapped.swap(at - 1, at);
        let swapped = String::from_utf8(swapped).expect("ASCII");
        assert!(swapped == text || swapped.parse::<InviteToken>().is_err(), "swapped at {at}");
        let mut missing = text.clone();
        let gone = missing.remove(at);
        assert!(missing.parse::<InviteToken>().is_err(), "missing at {at}");
        let mut doubled = text.clone();
        doubled.insert(at, gone);
        assert!(doubled.parse::<InviteToken>().is_err(), "doubled at {at}");
    }
}

#[test]
fn a_cut_token_is_called_cut() {
    let text = token().to_string();
    for end in "dri1-".len()..text.len() {
        assert_eq!(text[..end].parse::<InviteToken>(), Err(InviteError::Cut), "after {end}");
    }
    assert_eq!(format!("{text}aaaaaaaa").parse::<InviteToken>(), Err(InviteError::Mistyped));
}

#[test]
fn other_texts_are_told_apart() {
    let refused = |text: &str| text.parse::<InviteToken>().expect_err("must be refused");
    assert_eq!(refused(" \n"), InviteError::Empty);
    for foreign in [
        "dri",
        "dri1",
        "dri-abc",
        "drix-abc",
        "dri1111-abc",
        "K10abc::server:def",
        "-----BEGIN CERTIFICATE-----",
    ] {
        assert_eq!(refused(foreign), InviteError::Foreign, "{foreign}");
    }
    let text = token().to_string();
    assert_eq!(
        refused(&text.replacen('1', "2", 1)).to_string(),
        "the invite token is of version 2, and this build reads version 1"
    );
    assert_eq!(
        refused("dri01-abc"),
        InviteError::OtherVersion {
            version: "01".to_owned()
        }
    );
    assert_eq!(refused("dri1-ab c"), InviteError::BadCharacter { position: 8 });
    assert_eq!(
        refused(&text.to_ascii_uppercase().replacen("DRI", "dri", 1)),
        InviteError::BadCharacter { position: 6 }
    );
    let long = format!("dri1-{}", "a".repeat(MAX_INVITE_TEXT_BYTES));
    assert_eq!(refused(&long), InviteError::TooLong { length: long.len() });
    assert_eq!(refused(&seal(b"")), InviteError::BadBody);
    let mut body = postcard::to_allocvec(&token().0).expect("a body");
    body.push(0);
    assert_eq!(refused(&seal(&body)), InviteError::BadBody);
}

#[test]
fn bounds_hold_for_new_tokens_and_for_read_ones() {
    let body = |addresses: Vec<String>| Body { addresses, ..token().0 };
    for count in [0, MAX_INVITE_ADDRESSES + 1] {
        let body = body(vec!["robot:1".to_owned(); count]);
        let text = seal(&postcard::to_allocvec(&body).expect("a body"));
        assert_eq!(text.parse::<InviteToken>(), Err(InviteError::AddressCount { count }));
        assert_eq!(InviteToken::checked(body), Err(InviteError::AddressCount { count }));
    }
    for bad in [
        "",
        "robot",
        "robot:",
        ":1",
        "robot:0",
        "robot:+1",
        "robot:65536",
        "ro bot:1",
        "robot\n:1",
        "2001:db8::1:6013",
        "[robot]:1",
        "[::1]",
        "user@robot:1",
        "-robot:1",
        "https://robot:1",
    ] {
        assert!(
            matches!(
                InviteToken::checked(body(vec![bad.to_owned()])),
                Err(InviteError::BadAddress { .. })
            ),
            "{bad}"
        );
    }
    for good in ["robot:1", "10.0.0.7:65535", "[::1]:6013", "a_b.lab.example:6013"] {
        assert!(InviteToken::checked(body(vec![good.to_owned()])).is_ok(), "{good}");
    }
}

#[test]
fn the_largest_token_fits_its_bound() {
    let largest = Body {
        trust_domain: "d".repeat(255).parse().expect("good"),
        role: Role::Coordinator,
        name: "n".repeat(63).parse().expect("good"),
        addresses: vec![format!("{}:65535", "h".repeat(253)); MAX_INVITE_ADDRESSES],
        expires_unix_ms: u64::MAX,
        ..token().0
    };
    let text = InviteToken::checked(largest).expect("within every bound").to_string();
    assert!(text.len() <= MAX_INVITE_TEXT_BYTES, "{}", text.len());
    assert!(text.parse::<InviteToken>().is_ok());
}

#[test]
fn debug_and_errors_keep_the_seed() {
    let token = token();
    let shown = format!("{token:?} {:?}", token.seed());
    assert!(
        shown.contains("InviteSeed(..)") && !shown.contains("90") && !shown.to_lowercase().contains("5a"),
        "{shown}"
    );
}

#[test]
fn the_text_of_version_1_stays_as_it_is() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    assert_eq!(token().to_string(), GOLDEN);
    assert_eq!(GOLDEN.parse(), Ok(token()));
}

#[test]
fn base32_is_that_of_the_standard_and_has_one_text_for_all_bytes() {
    // RFC 4648 section 10, in lower case and without padding.
    let vectors = ["", "my", "mzxq", "mzxw6", "mzxw6yq", "mzxw6ytb", "mzxw6ytboi"];
    for (length, text) in vectors.into_iter().enumerate() {
        let bytes = &b"foobar"[..length];
        assert_eq!(base32(bytes), text);
        assert_eq!(from_base32(text.as_bytes()).as_deref(), Some(bytes));
    }
    for bad in [
        "m", "mzx", "mzxw6y", "mz", "mzxr", "mzxw7", "mzxw6yr", "MY", "m1", "my=", "my======",
    ] {
        assert_eq!(from_base32(bad.as_bytes()), None, "{bad}");
    }
}

const GOLDEN: &str = "dri1-accaw3dbmixgk6dbnvygyzida5zg6ytpoqwtoaqumnxw64tenfxgc5dpoixgyylchi3damjtcjntembqge5giyryhi5dc\
    xj2gyydcm5fuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuvnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfuws2ljnfvafa6hblcndddp2g2";
