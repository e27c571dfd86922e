//! The table of all verbs: one row for each request, in the order of their numbers.
//!
//! Whoever adds a request adds its row; the snapshot of the table is the record of who may ask what.

use crate::{
    access, audit, backup, cli_to_coordinator as cli, coordinator_to_daemon as order, daemon_to_coordinator as report,
    request::VerbRow,
};

/// Every request of this version.
pub const TABLE: &[VerbRow] = &[
    VerbRow::of::<cli::HasBundle>(),
    VerbRow::of::<cli::PutBundle>(),
    VerbRow::of::<cli::StartDataflow>(),
    VerbRow::of::<cli::StopDataflow>(),
    VerbRow::of::<cli::ListDataflows>(),
    VerbRow::of::<cli::WatchDataflow>(),
    VerbRow::of::<cli::ReadLogs>(),
    VerbRow::of::<cli::ListMachines>(),
    VerbRow::of::<cli::GetStatus>(),
    VerbRow::of::<access::CreateInvite>(),
    VerbRow::of::<access::ListInvites>(),
    VerbRow::of::<access::RevokeInvite>(),
    VerbRow::of::<access::Revoke>(),
    VerbRow::of::<access::ListIdentities>(),
    VerbRow::of::<access::Renew>(),
    VerbRow::of::<access::Join>(),
    VerbRow::of::<audit::ReadAudit>(),
    VerbRow::of::<audit::ListWitnesses>(),
    VerbRow::of::<access::AcceptRestore>(),
    VerbRow::of::<backup::ReadBackup>(),
    VerbRow::of::<order::PrepareRun>(),
    VerbRow::of::<order::SpawnRun>(),
    VerbRow::of::<order::ReleaseBarrier>(),
    VerbRow::of::<order::StopRun>(),
    VerbRow::of::<order::ForgetRun>(),
    VerbRow::of::<order::KeepHead>(),
    VerbRow::of::<order::KeepRevocations>(),
    VerbRow::of::<order::ShowHeads>(),
    VerbRow::of::<order::Ping>(),
    VerbRow::of::<order::WantLogs>(),
    VerbRow::of::<order::DrainLogs>(),
    VerbRow::of::<report::JoinMachine>(),
    VerbRow::of::<report::Heartbeat>(),
    VerbRow::of::<report::ReportEvents>(),
    VerbRow::of::<report::ShipLogs>(),
    VerbRow::of::<report::FetchBundle>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].verb < pair[1].verb, "{:?} before {:?}", pair[0], pair[1]);
        }
        let mut names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
