//! Which places a join takes, keeps and refuses, against real directories.

use super::*;
use crate::contexts::file_in;
use dora_remote_certs::{Authority, sha256};
use dora_remote_protocol::invite::InviteSeed;
use std::time::Duration;
use tempfile::TempDir;

const ID: &str = "5f1d3c2ab09e4477";

/// A configuration directory, and an authority that issues what is joined.
struct Home {
    dir: TempDir,
    authority: Authority,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let domain = "lab".parse().expect("good");
        let authority = Authority::init(&dir.path().join("authority"), &domain, SystemTime::now() - HOUR * 24).expect("made");
        Self { dir, authority }
    }

    fn issue(&self, identity: &str, life: Duration, ago: Duration) -> Credentials {
        let identity = identity.parse().expect("an identity");
        let at = SystemTime::now() - ago;
        self.authority.issue(&identity, life, at).expect("issued")
    }

    fn token(&self, identity: &str) -> InviteToken {
        let root_hash = sha256(self.issue(identity, HOUR, Duration::ZERO).root());
        let addresses = vec!["h:1".to_owned(), "i:2".to_owned()];
        let identity = identity.parse().expect("an identity");
        InviteToken::new(identity, addresses, root_hash, InviteSeed([7; 32]), 0).expect("a token")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn place(&self, token: &InviteToken, overwrite: bool) -> Result<Place, Failure> {
        let join = Join {
            token: None,
            out: Some(self.out()),
            context_name: None,
            no_context: true,
            make_current: false,
            overwrite,
        };
        Place::find(&join, token, ID)
    }

    fn wish(&self, token: &InviteToken, name: Option<&str>, make_current: bool) -> Wish {
        let join = Join {
            token: None,
            out: None,
            context_name: name.map(|name| name.parse().expect("a name")),
            no_context: false,
            make_current,
            overwrite: false,
        };
        Wish::of(&join, token, self.dir.path().join("config")).expect("good")
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const ROBOT: &str = "spiffe://lab/daemon/robot-7";
const ANN: &str = "spiffe://lab/viewer/ann";

fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

#[test]
fn an_identity_that_is_there_stays_unless_it_is_of_no_use_any_more() {
    let home = Home::new();
    let token = home.token(ROBOT);
    let empty = home.place(&token, false).expect("nothing is there");
    assert!(empty.joined().is_none() && !empty.overwrite);

    home.issue(ROBOT, HOUR, Duration::ZERO)
        .save(&home.out(), false)
        .expect("saved");
    let failure = home.place(&token, false).expect_err("taken");
    assert!(
        failure.message.contains(ROBOT) && failure.hint.contains("--overwrite"),
        "{failure:?}"
    );
    assert!(home.place(&token, true).expect("asked for").overwrite);

    home.issue(ROBOT, HOUR, HOUR * 2).save(&home.out(), true).expect("saved");
    assert!(home.place(&token, false).expect("it has ended").overwrite);
    home.issue(ANN, HOUR, HOUR * 2).save(&home.out(), true).expect("saved");
    assert!(home.place(&token, false).is_err(), "somebody else's");
}

#[test]
fn the_same_invite_again_is_known_by_its_mark() {
    let home = Home::new();
    let token = home.token(ROBOT);
    let fresh = home.issue(ROBOT, HOUR, Duration::ZERO);
    let place = home.place(&token, false).expect("nothing is there");
    place.save(&fresh, ID).expect("saved");
    let again = home.place(&token, false).expect("known");
    assert_eq!(again.joined().expect("joined").certificate(), fresh.certificate());
    fs::write(home.out().join(MARK), "another\n").expect("written");
    assert!(home.place(&token, false).is_err(), "another invite for the same name");
}

#[test]
fn people_get_a_context_for_the_trust_domain_and_machines_one_for_themselves() {
    let home = Home::new();
    let robot = home.wish(&home.token(ROBOT), None, false);
    let written = robot.write(&home.out(), Some(&address("i:2"))).expect("written");
    let (name, coordinator) = ("robot-7".parse().expect("a name"), address("i:2"));
    assert_eq!(
        written,
        Written {
            name,
            is_current: true,
            coordinator
        }
    );
    let ann = home.wish(&home.token(ANN), None, false);
    let second = ann.write(&home.out(), None).expect("written");
    assert_eq!(
        (second.name.as_str(), second.is_current, second.coordinator),
        ("lab", false, address("h:1"))
    );
    let used = home.wish(&home.token(ANN), Some("other"), true).write(&home.out(), None);
    assert!(used.expect("written").is_current);
    let again = robot.write(&home.out(), None).expect("written");
    assert_eq!(again.coordinator, address("i:2"), "what worked stays");
}

#[test]
fn a_context_of_another_coordinator_or_identity_is_not_replaced() {
    let home = Home::new();
    let token = home.token(ANN);
    let wish = home.wish(&token, None, false);
    let refused = |dir: &Path| wish.refuse_taken(dir, &token.identity());
    assert_eq!(refused(&home.out()), Ok(()));
    wish.write(&home.out(), None).expect("written");
    assert_eq!(refused(&home.out()), Ok(()), "the same once more");

    let elsewhere = home.dir.path().join("elsewhere");
    let failure = refused(&elsewhere).expect_err("another identity");
    assert!(
        failure.message.contains("`lab`") && failure.hint.contains("--context-name"),
        "{failure:?}"
    );
    home.issue(ANN, HOUR, Duration::ZERO).save(&home.out(), false).expect("saved");
    assert_eq!(refused(&elsewhere), Ok(()), "the same person, moved");

    let text = fs::read_to_string(file_in(&wish.config_dir)).expect("there");
    fs::write(file_in(&wish.config_dir), text.replace("h:1", "far:9")).expect("written");
    assert!(refused(&home.out()).is_err(), "another coordinator");
}
