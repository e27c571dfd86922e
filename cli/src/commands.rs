//! The verbs: each asks the coordinator or works on this machine, and hands a value to the output.

pub mod attach;
pub mod audit;
#[cfg(feature = "server")]
pub mod backup;
pub mod can_i;
pub mod certs;
pub mod confirm;
pub mod context;
#[cfg(feature = "server")]
pub mod coordinator;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod down;
#[cfg(feature = "server")]
pub mod engine;
pub mod follow;
pub mod identities;
#[cfg(feature = "server")]
pub mod install;
pub mod invite;
pub mod join;
pub mod launch;
pub mod list;
pub mod logs;
pub mod machines;
pub mod outcome;
#[cfg(feature = "server")]
pub mod restore;
pub mod revoke;
pub mod start;
pub mod status;
pub mod stop;
#[cfg(feature = "server")]
pub mod up;
pub mod upload;

use crate::{args::Global, client::Session, exit::Exit, failure::Failure, output::Printer, places, target};
use dora_remote_link::DialKind;
use dora_remote_protocol::{
    cli_to_coordinator::ListDataflows,
    dataflow::{DataflowRef, DataflowSummary},
    limits::QUERY_DEADLINE,
};

/// What every verb is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// What the command line says about the coordinator.
    pub given: target::Given,
    /// Where output goes.
    pub printer: Printer,
}

impl Context {
    /// The context of one command line.
    #[must_use]
    pub fn new(global: &Global, printer: Printer) -> Self {
        Self {
            given: target::Given {
                address: global.coordinator_addr.clone(),
                port: global.coordinator_port,
                identity: global.identity.clone(),
                context: global.context.clone(),
            },
            printer,
        }
    }

    /// The coordinator and the identity that are meant.
    ///
    /// # Errors
    /// A failure when none is named.
    pub fn target(&self) -> Result<target::Target, Failure> {
        target::resolve(&self.given, &places::process_env)
    }

    /// The coordinator and the identity that a daemon means, which may have been told neither.
    ///
    /// # Errors
    /// A failure when none is named and none was joined, or several were.
    #[cfg(feature = "server")]
    pub fn target_of_daemon(&self) -> Result<target::Target, Failure> {
        target::resolve_for_daemon(&self.given, &places::process_env)
    }

    /// Tells a person who looks which coordinator is meant; programs are told nothing.
    pub fn announce(&self, target: &target::Target) {
        self.printer.aside(&target.to_string());
        if let (Some(context), Some(address)) = (&target.context, &target.set_aside) {
            self.printer.warn(&format!(
                "an address in the environment sets aside the one of the context `{context}`, {address}"
            ));
        }
    }

    /// Does `work` in a session with the coordinator that is meant, and ends the session however the work ends.
    ///
    /// # Errors
    /// See [`Session::open`], and those of `work`.
    pub async fn in_session<T>(
        &self,
        kind: DialKind,
        work: impl AsyncFnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let target = self.target()?;
        self.announce(&target);
        let session = Session::open(&target, kind, &self.printer).await?;
        let done = work(&session).await;
        session.close().await;
        done
    }
}

/// Every dataflow that the coordinator lists.
async fn dataflows(session: &Session) -> Result<Vec<DataflowSummary>, Failure> {
    let listed = session.call("list the dataflows", &ListDataflows {}, QUERY_DEADLINE).await;
    listed.map_err(Failure::looking)
}

/// The one dataflow that is meant: as named, else the only one that has not ended.
async fn meant(session: &Session, named: Option<&str>) -> Result<DataflowRef, Failure> {
    if let Some(name) = named {
        let Ok(dataflow) = name.parse();
        return Ok(dataflow);
    }
    let mut live: Vec<_> = dataflows(session).await?;
    live.retain(|dataflow| !dataflow.state.has_ended());
    match live.as_slice() {
        [only] => Ok(DataflowRef::Id(only.id)),
        [] => Err(Failure::new(Exit::NotFound, "no dataflow is running").hint("`dora-remote list` shows those that have ended")),
        several => {
            let names = crate::descriptor::listed(several.iter().map(|dataflow| dataflow.name.to_string()));
            Err(Failure::usage(format!("several dataflows are running: {names}")).hint("name one of them"))
        }
    }
}
