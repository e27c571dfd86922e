//! Which address of a host to try, and when: names are looked up for each dial, families take turns, the first one wins.

use crate::{
    address::Address,
    endpoint::plain,
    error::{DialError, LinkError},
    verdict::verdict,
};
use dora_remote_certs::VerifyReport;
use dora_remote_protocol::limits::RACE_STEP;
use quinn::{ClientConfig, Connection, Endpoint};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::timeout};

/// Makes the configuration of one attempt, whose verifier writes into the given report.
pub(crate) type MakeConfig<'a> = dyn Fn(&Arc<VerifyReport>) -> Result<ClientConfig, LinkError> + Sync + 'a;

/// Attempts at the addresses behind one name (RFC 8305): each one gets a head start over the next, and the first finished
/// handshake wins.
#[derive(Default)]
pub(crate) struct Race {
    tried: Vec<SocketAddr>,
    failure: Option<DialError>,
}

impl Race {
    /// Connects to the first address that finishes a handshake; gives what its verifier has learnt as well.
    pub(crate) async fn run(
        &mut self,
        make_config: &MakeConfig<'_>,
        endpoint: &Endpoint,
        address: &Address,
    ) -> Result<(Connection, Arc<VerifyReport>), DialError> {
        let began = Instant::now();
        let has_ipv6 = endpoint.local_addr().is_ok_and(|local| local.is_ipv6());
        let found = resolve(address).await?;
        let mut waiting = in_turn(found.into_iter().filter(|found| has_ipv6 || found.is_ipv4())).into_iter();
        let mut running = JoinSet::new();
        loop {
            if let Some(next) = waiting.next() {
                self.tried.push(plain(next));
                let report = Arc::new(VerifyReport::default());
                let config = make_config(&report)?;
                match endpoint.connect_with(config, next, SERVER_NAME) {
                    Ok(connecting) => {
                        running.spawn(async move { (plain(next), connecting.await, report) });
                    }
                    Err(error @ quinn::ConnectError::EndpointStopping) => {
                        return Err(LinkError::Socket(io::Error::other(error)).into());
                    }
                    Err(error) => self.note(DialError::Tls {
                        address: next,
                        detail: error.to_string(),
                    }),
                }
            }
            if running.is_empty() && waiting.len() == 0 {
                return Err(self.lost(address, began.elapsed()));
            }
            let ended = if waiting.len() > 0 {
                match timeout(RACE_STEP, running.join_next()).await {
                    Ok(ended) => ended,
                    Err(_) => continue,
                }
            } else {
                running.join_next().await
            };
            match ended {
                Some(Ok((_, Ok(connection), report))) => return Ok((connection, report)),
                Some(Ok((remote, Err(error), report))) => self.note(verdict(remote, &error, report.take())),
                Some(Err(_)) => return Err(LinkError::TaskPanicked { task: "dial" }.into()),
                None => {}
            }
        }
    }

    /// Keeps the failure that tells most.
    fn note(&mut self, failure: DialError) {
        tracing::debug!(error = %failure, "an address did not work out");
        if self.failure.as_ref().is_none_or(|kept| kept.weight() < failure.weight()) {
            self.failure = Some(failure);
        }
    }

    /// What is to be said when no address worked out, or the time is over.
    pub(crate) fn lost(&mut self, address: &Address, after: Duration) -> DialError {
        let tried = std::mem::take(&mut self.tried);
        if tried.is_empty() {
            return DialError::Resolve {
                host: address.host.clone(),
                reason: format!("no answer and no usable address after {:.1} s", after.as_secs_f64()),
            };
        }
        match self.failure.take() {
            Some(failure) if failure.weight() > 0 => failure,
            Some(_) | None => DialError::Unreachable {
                address: address.clone(),
                tried,
                after,
            },
        }
    }
}

/// Asks the name service, each time anew: a coordinator may have moved.
async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, DialError> {
    let fault = |reason: String| DialError::Resolve {
        host: address.host.clone(),
        reason,
    };
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| fault(error.to_string()))?;
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(fault("the name has no address".to_owned()));
    }
    Ok(found)
}

/// The order of attempts: IPv6 and IPv4 in turn, IPv6 first, at most [`MAX_ADDRESSES`], none twice.
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four) = (Vec::new(), Vec::new());
    for address in found {
        let family = if address.is_ipv6() { &mut six } else { &mut four };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut ordered = Vec::new();
    while ordered.len() < MAX_ADDRESSES {
        let before = ordered.len();
        ordered.extend(six.next());
        ordered.extend(four.next());
        if ordered.len() == before {
            break;
        }
    }
    ordered.truncate(MAX_ADDRESSES);
    ordered
}

/// The TLS stack wants a server name; it is not sent and not checked.
const SERVER_NAME: &str = "coordinator";
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_ipv6_goes_first() {
        let parse = |text: &str| -> SocketAddr { text.parse().expect("good") };
        let found = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.1:1", "[2001:db8::1]:1"].map(parse);
        let ordered = in_turn(found.into_iter());
        assert_eq!(ordered, ["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"].map(parse));
        let many = (1..100).map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        assert_eq!(in_turn(many).len(), MAX_ADDRESSES);
    }
}
