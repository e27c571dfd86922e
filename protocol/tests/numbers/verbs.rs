//! The table of verbs, and who may ask.

use dora_remote_protocol::{
    identity::{Role, RoleSet},
    request::{Shape, VerbRow},
    verbs,
};
use std::{fmt::Write as _, path::Path};

#[test]
fn the_table_of_verbs_is_the_committed_one() {
    let mut table = String::from("# verb  name              shape   who may ask\n");
    for row in verbs::TABLE {
        let shape = match row.shape {
            Shape::Call => "call",
            Shape::Feed => "feed",
            Shape::Upload => "upload",
        };
        writeln!(table, "{:>6}  {:<16}  {shape:<6}  {}", row.verb.0, row.name, who(row)).expect("a String takes all");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verbs.txt");
    let committed = std::fs::read_to_string(&path).expect("the committed table");
    assert_eq!(
        table,
        committed,
        "who may ask what has changed; if that is meant, write the left text into {}",
        path.display()
    );
}

#[test]
fn no_verb_is_open_to_people_and_machines_alike() {
    // Everybody renews; and joining is for those who hold an invite, whatever they become.
    for row in verbs::TABLE.iter().filter(|row| !matches!(row.name, "renew" | "join")) {
        let kinds = [
            RoleSet::LOOK.iter().any(|role| row.may_ask.contains(role)),
            row.may_ask.contains(Role::Daemon),
            row.may_ask.contains(Role::Coordinator),
        ];
        assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{row:?}");
    }
}

/// Who may ask, in words.
fn who(row: &VerbRow) -> String {
    if row.may_ask == RoleSet::NOBODY {
        return "the holder of an invite".to_owned();
    }
    row.may_ask.to_string()
}
