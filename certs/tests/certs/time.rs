//! Clocks that are wrong, in whole handshakes: boards that boot in 1970, clocks that are ahead or jump back, and lives that are
//! long over.

use crate::support::{DAY, House, birth, frozen, shake, stopped};
use dora_remote_certs::{
    Admit, Clock, Credentials, FloorClock, ISSUING_LIFE, VerifyError, VerifyReport, admit, client_config_with_report,
    server_config, verify_error_of,
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A clock that the test sets.
#[derive(Debug)]
struct Settable(Mutex<SystemTime>);

impl Settable {
    fn set(&self, at: SystemTime) {
        *self.0.lock().unwrap() = at;
    }
}

impl Clock for Settable {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

/// A board whose program was built at the given time, and the clock under it.
fn board(built: SystemTime) -> (Arc<Settable>, FloorClock) {
    let inner = Arc::new(Settable(Mutex::new(UNIX_EPOCH)));
    let floor = FloorClock::new(inner.clone(), built, None);
    (inner, floor)
}

/// What a daemon with that clock thinks of a coordinator that is there at `now`.
fn dial(lab: &House, clock: Arc<dyn Clock>, coordinator: &Credentials, now: SystemTime) -> Result<(), VerifyError> {
    let daemon = lab.issue_for("daemon/robot-7", DAY * 300);
    let client = client_config_with_report(&daemon, clock, Arc::new(VerifyReport::default())).unwrap();
    let server = server_config(coordinator, stopped(now), frozen(lab.snapshot())).unwrap();
    let ended = shake(client, server);
    if ended.is_good() {
        return Ok(());
    }
    Err(verify_error_of(ended.client_error.as_ref().expect("the client must refuse")).expect("for a reason of its own"))
}

#[test]
fn a_board_that_boots_in_1970_reaches_a_coordinator_that_is_younger_than_its_build() {
    let lab = House::lab();
    let (inner, clock) = board(birth() - DAY * 200);
    let clock = Arc::new(clock);
    let coordinator = lab.issue("coordinator/main");
    assert_eq!(dial(&lab, clock.clone(), &coordinator, birth()), Ok(()));

    // A clock that starts between the build and today is behind nothing that is known, and somebody may set it right.
    inner.set(birth() - DAY * 100);
    let refused = dial(&lab, clock, &coordinator, birth());
    let not_before = coordinator.certificate().not_before;
    let now = birth() - DAY * 100;
    assert_eq!(refused, Err(VerifyError::NotYetValid { not_before, now }));

    // Where nobody sits, it may lag as well.
    let (inner, clock) = board(birth() - DAY * 200);
    inner.set(now);
    assert_eq!(dial(&lab, Arc::new(clock.unattended()), &coordinator, birth()), Ok(()));
}

#[test]
fn a_clock_that_lags_excuses_nothing_but_the_begin() {
    let (lab, other) = (House::lab(), House::lab());
    let (_, clock) = board(birth() - DAY * 200);
    let clock = Arc::new(clock.unattended());
    let foreign = dial(&lab, clock.clone(), &other.issue("coordinator/main"), birth());
    assert_eq!(foreign, Err(VerifyError::UnknownAuthority));
    // The floor has passed the end of a coordinator's certificate that somebody has kept.
    clock.advance(birth() + DAY * 31);
    let kept = lab.issue("coordinator/main");
    assert!(matches!(dial(&lab, clock, &kept, birth()), Err(VerifyError::Expired { .. })));
}

#[test]
fn a_clock_that_is_a_year_ahead_is_refused_with_both_times_and_leaves_no_trace() {
    let lab = House::lab();
    let (inner, clock) = board(birth());
    let clock = Arc::new(clock.unattended());
    let coordinator = lab.issue("coordinator/main");
    let now = birth() + DAY * 365;
    inner.set(now);
    let not_after = coordinator.certificate().not_after;
    let refused = dial(&lab, clock.clone(), &coordinator, birth());
    assert_eq!(refused, Err(VerifyError::Expired { not_after, now }));
    inner.set(birth() + Duration::from_secs(1));
    assert_eq!(dial(&lab, clock.clone(), &coordinator, birth()), Ok(()));
    assert_eq!(clock.floor(), birth(), "only a verified coordinator moves it");
}

#[test]
fn a_clock_that_jumps_back_is_held_by_what_a_coordinator_has_told() {
    let lab = House::lab();
    let (inner, clock) = board(birth() - DAY * 200);
    let clock = Arc::new(clock);
    inner.set(birth());
    let (early, late) = (
        lab.issue_for("coordinator/main", DAY),
        lab.issue_for("coordinator/main", DAY * 60),
    );
    assert_eq!(dial(&lab, clock.clone(), &late, birth()), Ok(()));
    clock.advance(birth() + DAY * 2);
    inner.set(birth() - DAY * 300);
    assert_eq!(dial(&lab, clock.clone(), &late, birth() + DAY * 2), Ok(()));
    // What has ended does not begin to count again.
    assert!(matches!(
        dial(&lab, clock, &early, birth() + DAY * 2),
        Err(VerifyError::Expired { .. })
    ));
}

#[test]
fn a_daemon_that_lapsed_for_a_year_still_gets_in_to_renew() {
    let mut lab = House::lab();
    let daemon = lab.issue("daemon/robot-7");
    let now = birth() + ISSUING_LIFE + DAY * 60;
    assert!(
        now > lab.authority.issuing().not_after,
        "the issuing certificate is over as well"
    );
    let (mut lenient, mut strict) = (lab.snapshot(), lab.snapshot());
    lenient.set_renew_window(DAY * 500);
    strict.set_renew_window(DAY * 90);
    assert_eq!(
        admit(&daemon.chain(), now, &lenient),
        Admit::RenewOnly(daemon.certificate().clone())
    );
    assert!(matches!(admit(&daemon.chain(), now, &strict), Admit::No(_)));

    // Through a whole handshake, with a coordinator under the issuing certificate that came after.
    lab.renew_issuing(birth() + ISSUING_LIFE);
    let coordinator = lab.identity("coordinator/main");
    let coordinator = lab.authority.issue(&coordinator, DAY * 100, birth() + ISSUING_LIFE).unwrap();
    let client = client_config_with_report(&daemon, stopped(now), Arc::default()).unwrap();
    let server = |snapshot| server_config(&coordinator, stopped(now), frozen(snapshot)).unwrap();
    let ended = shake(client.clone(), server(lenient.clone()));
    assert!(ended.is_good(), "{:?} {:?}", ended.client_error, ended.server_error);
    assert!(!shake(client, server(strict)).is_good());
    // The identity is revoked, whatever has lapsed.
    lenient.revoke_holder(daemon.identity().role, &daemon.identity().name);
    assert!(matches!(admit(&daemon.chain(), now, &lenient), Admit::No(_)));
}
