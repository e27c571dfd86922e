//! Those that came with the identity of a machine that is in use and answers: a cloned disk, a copied key. Pure.
//!
//! They try again and again, so each is remembered, to be told of once and to be shown to people.

use super::{Claim, MachineRecord};
use crate::moment::Moment;
use dora_remote_protocol::{
    ids::{BootId, InstanceId},
    machine::{MAX_QUARANTINED, Quarantine},
    refusal::{Refusal, RefusalCode},
};

/// Machines that were refused. Full means that the one that has not tried for the longest time is forgotten.
#[derive(Debug, Default)]
pub(super) struct Twins(Vec<Quarantine>);

/// What a refused machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) refusal: Refusal,
    /// Whether it is the first time, or it comes from elsewhere: worth a line in the log.
    pub(crate) is_news: bool,
}

impl Twins {
    /// Remembers that a claim is refused in favour of the machine in use.
    pub(super) fn refuse(&mut self, used: &MachineRecord, claim: &Claim, now: Moment) -> Quarantined {
        let known = self.0.iter().position(|twin| is(twin, claim.instance, claim.boot));
        let known = known.map(|index| self.0.remove(index));
        let since = |twin: &Quarantine| now.unix_ms.saturating_sub(twin.at_unix_ms);
        let is_news = known
            .as_ref()
            .is_none_or(|twin| host(&twin.address) != host(&claim.address) || since(twin) > SHOWN_MS);
        if self.0.len() >= MAX_QUARANTINED {
            self.0.remove(0);
        }
        self.0.push(Quarantine {
            instance: claim.instance,
            boot: claim.boot,
            address: claim.address.clone(),
            at_unix_ms: now.unix_ms,
            tries: known.map_or(0, |twin| twin.tries).saturating_add(1),
        });
        Quarantined {
            refusal: refusal(used, claim, now),
            is_news,
        }
    }

    /// Notes that one of them is in use now.
    pub(super) fn is_in_use(&mut self, instance: InstanceId, boot: BootId) {
        self.0.retain(|twin| !is(twin, instance, boot));
    }

    /// Those that have tried of late.
    pub(super) fn of_late(&self, now: Moment) -> Vec<Quarantine> {
        let is_late = |twin: &&Quarantine| now.unix_ms.saturating_sub(twin.at_unix_ms) <= SHOWN_MS;
        self.0.iter().filter(is_late).cloned().collect()
    }
}

fn is(twin: &Quarantine, instance: InstanceId, boot: BootId) -> bool {
    twin.instance == instance && twin.boot == boot
}

/// Names both, so that people at either machine know where to look.
fn refusal(used: &MachineRecord, claim: &Claim, now: Moment) -> Refusal {
    let name = &used.name;
    let seconds = now.unix_ms.saturating_sub(used.last_heard_unix_ms) / 1000;
    let message = format!(
        "another machine with the identity of `{name}` is in use and answers: instance {} at {} (boot {}, last heard {seconds} s ago); \
         this one, instance {} at {} (boot {}), is not used",
        used.instance, used.address, used.boot, claim.instance, claim.address, claim.boot
    );
    let hint = format!(
        "give the copy an identity of its own: `dora-remote invite --role daemon --name NAME`, and join there with a fresh state \
         directory; or stop the machine that should not run; `dora-remote revoke {name}` shuts out both"
    );
    Refusal::new(RefusalCode::Quarantined, message).hint(hint)
}

/// The address without its port, which changes with each try.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// How long after its last try a refused machine is shown, in milliseconds: an hour.
const SHOWN_MS: u64 = 3_600_000;
