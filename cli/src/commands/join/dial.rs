//! The way of a join over the network: the addresses of the token, the one question, and the proof of the answer.

use crate::{
    client::speaker,
    exit::Exit,
    failure::Failure,
    output::{Printer, progress},
};
use dora_remote_certs::{Clock, Credentials, JoinCredentials, JoinTarget, Utc};
use dora_remote_link::{Address, CallError, CloseCode, DialError, DialKind, Dialer, JoinDialer, LinkError, Peer};
use dora_remote_protocol::{
    access::{CertificateIssued, Join},
    invite::InviteToken,
    limits::QUERY_DEADLINE,
    refusal::Changed,
};
use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::{task::JoinSet, time::sleep};

/// How often the question is asked when its answer is lost. Asking again with the same key is always right.
const ATTEMPTS: usize = 2;

/// How long an address has for itself before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_secs(1);

/// What the way needs.
pub(super) struct Way<'a> {
    pub(super) token: &'a InviteToken,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) printer: &'a Printer,
}

/// What came back.
pub(super) struct Answered {
    pub(super) issued: CertificateIssued,
    /// The root whose hash the token has, in DER form.
    pub(super) root: Vec<u8>,
    /// Where it came from.
    pub(super) address: Address,
}

impl Way<'_> {
    /// Asks at the addresses of the token until one answers.
    pub(super) async fn ask(&self, credentials: JoinCredentials, request: &[u8]) -> Result<Answered, Failure> {
        let addresses: Result<Vec<Address>, _> = self.token.addresses().iter().map(|text| text.parse()).collect();
        let addresses = addresses.map_err(|error| {
            let failure = Failure::usage("the token holds an address that is none");
            failure.because(&error).changed(Changed::Nothing)
        })?;
        let dialer = JoinDialer::new(credentials, JoinTarget::from(self.token), speaker(), Arc::clone(self.clock));
        let dialer = Arc::new(dialer.map_err(|error| local(&error))?);
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            let connecting = || format!("connecting to {}", self.token.addresses().join(", "));
            let (address, peer, root) = progress::showing(self.printer, connecting, connect(&dialer, &addresses)).await?;
            match self.question(&peer, request).await {
                Ok(issued) => return Ok(Answered { issued, root, address }),
                Err(error) if !is_lost(&error) => return Err(self.refused(&error)),
                Err(error) if attempts == 0 => return Err(lost(&error)),
                Err(_) => {}
            }
        }
    }

    /// Shows the coordinator the new certificate before it replaces anything.
    pub(super) async fn prove(&self, fresh: &Credentials, address: &Address) -> Result<(), Failure> {
        let again = "nothing was saved; run the same command again, the invite knows this machine's key";
        let dialer = Dialer::with_clock(fresh, speaker(), DialKind::Command, Arc::clone(self.clock));
        let dialer = dialer.map_err(|error| local(&error))?;
        let trying = || format!("trying the new certificate at {address}");
        let proven = progress::showing(self.printer, trying, async {
            let peer = dialer
                .dial(address)
                .await
                .map_err(|error| Failure::of_dial(address, &error))?;
            let welcome = peer.welcome().await;
            peer.close_and_flush(CloseCode::Done, "").await;
            welcome
                .map(drop)
                .map_err(|error| Failure::of_call("use the new certificate", &error))
        });
        proven.await.map_err(|failure| failure.hint(again).looking())
    }

    async fn question(&self, peer: &Peer, request: &[u8]) -> Result<CertificateIssued, CallError> {
        let join = Join {
            request: request.to_vec(),
        };
        let waiting = || "waiting for a certificate".to_owned();
        let answer = progress::showing(self.printer, waiting, peer.call(&join, QUERY_DEADLINE)).await;
        peer.close_and_flush(CloseCode::Done, "").await;
        answer
    }

    /// The coordinator is the right one and does not let this invite in.
    fn refused(&self, error: &CallError) -> Failure {
        let CallError::PeerRefusedUs { .. } = error else {
            return Failure::of_call("join", error);
        };
        // A key that is not, or no longer, that of an invite gets no word beyond the alert.
        let failure = Failure::new(Exit::Denied, "the coordinator does not know this invite").changed(Changed::Nothing);
        let expires = UNIX_EPOCH + Duration::from_millis(self.token.expires_unix_ms());
        let now = self.clock.now();
        if now > expires {
            failure
                .cause(format!("it ended at {}, and it is {} here", Utc(expires), Utc(now)))
                .hint("ask an admin for a new invite")
        } else {
            failure
                .cause(format!("it is said to end at {}", Utc(expires)))
                .hint("it may have been forgotten with a restored backup; ask an admin for a new invite")
        }
    }
}

/// Dials the addresses in their order, each a little after the one before unless that has failed; the first that answers wins.
async fn connect(dialer: &Arc<JoinDialer>, addresses: &[Address]) -> Result<(Address, Peer, Vec<u8>), Failure> {
    let mut waiting = addresses.iter().cloned();
    let mut dials = JoinSet::new();
    let mut told: Option<Failure> = None;
    loop {
        if let Some(address) = waiting.next() {
            let dialer = Arc::clone(dialer);
            dials.spawn(async move {
                let dialled = dialer.dial(&address).await;
                (address, dialled)
            });
        }
        let failure = tokio::select! {
            biased;
            Some(done) = dials.join_next() => match done {
                Ok((address, Ok((peer, root)))) => return Ok((address, peer, root.to_vec())),
                Ok((address, Err(error))) => not_dialled(&address, &error),
                Err(error) => Failure::new(Exit::Failed, "a dial was lost").because(&error),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => continue,
            else => break,
        };
        told = Some(match told {
            // That nobody answers tells less than what somebody has said.
            Some(known) if failure.exit == Exit::Unreachable && known.exit != Exit::Unreachable => known,
            _ => failure,
        });
        if dials.is_empty() && waiting.len() == 0 {
            break;
        }
    }
    Err(told.unwrap_or_else(|| Failure::usage("the token holds no address")))
}

fn not_dialled(address: &Address, error: &DialError) -> Failure {
    let failure = Failure::of_dial(address, error).changed(Changed::Nothing);
    match error {
        DialError::ServerNotTrusted { .. } => failure.hint(
            "it is not the coordinator that this invite is for, and it has learnt nothing; compare the root's SHA-256 with the \
             one that the admin sees, and do not join before you know why",
        ),
        DialError::Resolve { .. } => failure.hint("ask for an invite with another `--address`"),
        _ => failure,
    }
}

/// Whether the answer was lost and asking again may bring it.
fn is_lost(error: &CallError) -> bool {
    matches!(error, CallError::Lost(_) | CallError::TimedOut { .. })
}

fn lost(error: &CallError) -> Failure {
    let failure = Failure::of_call("join", error).looking();
    failure.hint("run the same command again: the invite is kept for this machine's key")
}

fn local(error: &LinkError) -> Failure {
    Failure::new(Exit::Failed, "cannot make a connection")
        .because(error)
        .changed(Changed::Nothing)
}
