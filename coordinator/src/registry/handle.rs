//! The way to the registry: a bounded queue of jobs, arrivals that never wait, and what is published.

use super::{
    Found, Holder, Published, RenewAsk,
    admission::LiveAdmission,
    keeper::{AuthorityCell, Keeper},
};
use dora_remote_certs::{Admission, Authority, CertificateFacts, JoinKey};
use dora_remote_protocol::{
    access::{
        CertificateIssued, CreateInvite, IdentitySummary, InviteCreated, InviteSummary, RestoreAccepted, Revocation, Revoke,
        Revoked,
    },
    refusal::{Changed, Refusal, RefusalCode},
};
use redb::Database;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::timeout,
};

/// The way to the registry. Clones are handles; when the last one is dropped, the thread ends with everything on the disk.
#[derive(Clone)]
pub(crate) struct RegistryHandle(Arc<Inner>);

struct Inner {
    mailbox: Arc<Mailbox>,
    places: Arc<Semaphore>,
    changes: watch::Receiver<Published>,
    authority: AuthorityCell,
    epoch: u64,
    database: Arc<Database>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RegistryHandle {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        changes: watch::Receiver<Published>,
        authority: AuthorityCell,
        epoch: u64,
        database: Arc<Database>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self(Arc::new(Inner {
            mailbox,
            places: Arc::new(Semaphore::new(MAX_JOBS)),
            changes,
            authority,
            epoch,
            database,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Which life of the coordinator's store this is.
    pub(crate) fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// The file itself, for a backup.
    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.0.database)
    }

    /// What the link asks about each peer.
    pub(crate) fn admission(&self) -> Arc<dyn Admission> {
        Arc::new(LiveAdmission(self.0.changes.clone()))
    }

    /// What is revoked, as of now.
    pub(crate) fn published(&self) -> Published {
        self.0.changes.borrow().clone()
    }

    /// Hears of each change of what is published.
    pub(crate) fn changes(&self) -> watch::Receiver<Published> {
        self.0.changes.clone()
    }

    /// Issues with that authority from now on: its issuing certificate was replaced.
    pub(crate) fn use_authority(&self, authority: Arc<Authority>) {
        *self.0.authority.write().unwrap_or_else(PoisonError::into_inner) = Some(authority);
    }

    /// A peer with a good certificate has come. Never waits.
    pub(crate) fn arrived(&self, facts: &CertificateFacts) {
        self.0.mailbox.arrived(facts);
    }

    /// See [`super::Registry::create_invite`].
    pub(crate) async fn create_invite(&self, by: String, request: CreateInvite) -> Result<InviteCreated, Refusal> {
        self.ask(move |keeper| keeper.create_invite(&by, &request)).await
    }

    /// See [`super::Registry::list_invites`].
    pub(crate) async fn list_invites(&self) -> Result<Vec<InviteSummary>, Refusal> {
        self.ask(|keeper| Ok(keeper.list_invites())).await
    }

    /// See [`super::Registry::revoke_invite`]. Connections that came with those invites are closed.
    pub(crate) async fn revoke_invite(&self, by: String, which: String) -> Result<Vec<InviteSummary>, Refusal> {
        self.ask(move |keeper| keeper.revoke_invite(&by, &which)).await
    }

    /// See [`super::Registry::revoke`]. Live connections of whom it shuts out are closed when this returns.
    pub(crate) async fn revoke(&self, by: String, request: Revoke) -> Result<Revoked, Refusal> {
        self.ask(move |keeper| keeper.revoke(&by, &request)).await
    }

    /// See [`super::Registry::identities`].
    pub(crate) async fn identities(&self) -> Result<Vec<IdentitySummary>, Refusal> {
        self.ask(|keeper| Ok(keeper.identities())).await
    }

    /// See [`super::Registry::renew`]; `connection` is the id of the asking peer.
    pub(crate) async fn renew(&self, ask: RenewAsk, connection: u64, request: Vec<u8>) -> Result<CertificateIssued, Refusal> {
        self.ask(move |keeper| keeper.renew(&ask, connection, &request)).await
    }

    /// See [`super::Registry::join`].
    pub(crate) async fn join(&self, key: JoinKey, from: String, request: Vec<u8>) -> Result<CertificateIssued, Refusal> {
        self.ask(move |keeper| keeper.join(key, &from, &request)).await
    }

    /// The coordinator's state was found to be older than what a daemon has witnessed: see [`super::Registry::found_restored`].
    pub(crate) async fn found_restored(&self, why: String, revocations: Vec<Revocation>) -> Result<Found, Refusal> {
        self.ask(move |keeper| keeper.found_restored(&why, revocations)).await
    }

    /// See [`super::Registry::accept_restore`].
    pub(crate) async fn accept_restore(&self) -> Result<RestoreAccepted, Refusal> {
        self.ask(Keeper::accept_restore).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Keeper) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let asking = async {
            let gone = || Refusal::new(RefusalCode::ShuttingDown, "the coordinator is ending");
            let place = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| gone())?;
            let (reply, answer) = oneshot::channel();
            let job = Box::new(move |keeper: &mut Keeper| drop(reply.send(job(keeper))));
            self.0.mailbox.put(job, place);
            answer.await.unwrap_or_else(|_| Err(gone().changed(Changed::Unknown)))
        };
        timeout(JOB_DEADLINE, asking).await.unwrap_or_else(|_| {
            Err(
                Refusal::new(RefusalCode::DeadlineExceeded, "the coordinator's disk is too slow")
                    .hint("look whether it was done before you ask again")
                    .changed(Changed::Unknown),
            )
        })
    }
}

impl fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryHandle").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.mailbox.end();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the registry's thread has panicked");
        }
    }
}

/// Something that the thread does.
pub(super) type Job = Box<dyn FnOnce(&mut Keeper) + Send>;

/// What the thread is to do next.
pub(super) enum Work {
    Arrivals(Vec<CertificateFacts>),
    Job(Job),
    Nothing,
    End,
}

/// What waits for the thread.
#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Job, OwnedSemaphorePermit)>,
    /// By holder and serial: who comes again and again waits once.
    arrivals: BTreeMap<(Holder, String), CertificateFacts>,
    is_ending: bool,
}

impl Mailbox {
    /// The next work; none after `patience`. Arrivals come first: jobs may be about those who have just come.
    pub(super) fn next(&self, patience: Duration) -> Work {
        let waiting = self.lock();
        let is_idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && waiting.arrivals.is_empty() && !waiting.is_ending;
        let (mut waiting, _) = self
            .changed
            .wait_timeout_while(waiting, patience, is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        if !waiting.arrivals.is_empty() {
            return Work::Arrivals(mem::take(&mut waiting.arrivals).into_values().collect());
        }
        match waiting.jobs.pop_front() {
            Some((job, _place)) => Work::Job(job),
            None if waiting.is_ending => Work::End,
            None => Work::Nothing,
        }
    }

    fn put(&self, job: Job, place: OwnedSemaphorePermit) {
        self.lock().jobs.push_back((job, place));
        self.changed.notify_one();
    }

    fn arrived(&self, facts: &CertificateFacts) {
        let mut waiting = self.lock();
        if waiting.arrivals.len() < MAX_ARRIVALS {
            let key = (Holder::of(&facts.identity), facts.serial.clone());
            waiting.arrivals.insert(key, facts.clone());
            self.changed.notify_one();
        } else {
            tracing::warn!(peer = %facts.identity, "too many peers arrive at once; this one is not noted as seen");
        }
    }

    fn end(&self) {
        self.lock().is_ending = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Jobs that wait for the thread; when so many do, askers wait within [`JOB_DEADLINE`].
const MAX_JOBS: usize = 256;
/// Arrivals that wait for the thread; when so many do, further ones are not noted as seen. As many as attempts may wait at the socket.
const MAX_ARRIVALS: usize = 16_384;
/// Time for the registry to answer: a disk that takes longer is broken.
const JOB_DEADLINE: Duration = Duration::from_secs(30);
