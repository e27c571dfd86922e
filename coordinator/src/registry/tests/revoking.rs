//! Revocations, and what a restore from a backup does to them and to invites.

use super::{NOW, revoke};
use crate::registry::samples::{Asks, asked, done, registry, revocation};
use dora_remote_protocol::{
    access::{MAX_REASON_BYTES, Revoke, RevokeTarget},
    refusal::RefusalCode,
};
use std::collections::BTreeMap;

#[test]
fn a_name_is_revoked_by_itself_when_one_role_has_it() {
    let mut registry = registry();
    for (role, name, key) in [("daemon", "x", 1), ("viewer", "x", 2), ("admin", "ann", 3)] {
        let decided = registry.create_invite("ann", &asked(role, name, key), NOW);
        done(&mut registry, decided);
        let decided = registry.join(&[key; 32], "", &Asks::with("aa", NOW), NOW);
        done(&mut registry, decided);
    }
    let refusal = registry.revoke("ann", &revoke(None, "x"), NOW).unwrap_err();
    assert!(refusal.message.contains("viewer/x, daemon/x"), "{refusal}");
    assert_eq!(
        registry.revoke("ann", &revoke(None, "nobody"), NOW).unwrap_err().code,
        RefusalCode::NotFound
    );
    for bad in [
        revoke(Some("coordinator"), "c"),
        Revoke {
            target: RevokeTarget::Serial("xyz".to_owned()),
            reason: String::new(),
        },
        Revoke {
            reason: "x".repeat(MAX_REASON_BYTES + 1),
            ..revoke(Some("daemon"), "x")
        },
    ] {
        assert_eq!(registry.revoke("ann", &bad, NOW).unwrap_err().code, RefusalCode::BadRequest);
    }
    let (delta, revocation, _) = registry.revoke("bob", &revoke(None, "ann"), NOW).unwrap();
    assert!(revocation.reason.contains("the last admin on record"), "{revocation:?}");
    registry.apply(delta);
    let (delta, again, is_new) = registry.revoke("eve", &revoke(Some("admin"), "ANN"), NOW + 1).unwrap();
    assert!(delta.is_empty() && !is_new && again == revocation);
    let listed = registry.identities(&BTreeMap::new());
    assert_eq!(listed[0].revoked.as_ref(), Some(&revocation));
}

#[test]
fn a_restore_voids_open_invites_once_and_brings_revocations_back() {
    let mut registry = registry();
    for (name, key) in [("a", 1), ("b", 2)] {
        let decided = registry.create_invite("ann", &asked("daemon", name, key), NOW);
        done(&mut registry, decided);
    }
    let decided = registry.join(&[1; 32], "", &Asks::with("aa", NOW), NOW);
    done(&mut registry, decided);
    let forgotten = vec![revocation("daemon", "lost"), revocation("daemon", "lost")];
    let (delta, found) = registry.found_restored("a test", forgotten, NOW);
    assert_eq!((found.is_new, found.voided_invites, found.merged_revocations), (true, 1, 1));
    registry.apply(delta);
    assert!(registry.restored.is_some());
    let refusal = registry.join(&[2; 32], "", &Asks::with("aa", NOW), NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InviteVoid);
    let refusal = registry.join(&[1; 32], "", &Asks::with("bb", NOW), NOW).unwrap_err();
    assert!(refusal.message.contains("was used at"), "a used invite stays void: {refusal}");

    // Whom an admin invites now was not forgotten.
    let decided = registry.create_invite("ann", &asked("daemon", "c", 3), NOW);
    done(&mut registry, decided);
    let (delta, found) = registry.found_restored("again", vec![revocation("daemon", "lost")], NOW);
    assert!(delta.is_empty() && !found.is_new && found.merged_revocations == 0);
}
