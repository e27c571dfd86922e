//! What the records say that others must know at once: labels of machines, and the machines that an asker is limited to.
//!
//! Written by the registry after each change that is stored; read without waiting.

use dora_remote_protocol::{
    dataflow::Labels,
    identity::{Identity, Role},
    name::MachineName,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// The records of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Labels of machines, by name in lower case.
    labels: BTreeMap<String, Labels>,
    /// Labels that the machines of an operator must have, by its role and name in lower case.
    limits: BTreeMap<(Role, String), Labels>,
}

impl View {
    /// Adds the labels of a machine.
    pub(crate) fn label(&mut self, machine: &MachineName, labels: Labels) {
        self.labels.insert(machine.as_str().to_ascii_lowercase(), labels);
    }

    /// Limits a holder to machines with these labels.
    pub(crate) fn limit(&mut self, identity: &Identity, labels: Labels) {
        let key = (identity.role, identity.name.as_str().to_ascii_lowercase());
        self.limits.insert(key, labels);
    }

    /// The labels in the record of a machine; none when it has no record.
    pub(crate) fn labels_of(&self, machine: &MachineName) -> Option<&Labels> {
        self.labels.get(&machine.as_str().to_ascii_lowercase())
    }

    /// What an identity is limited to; [`Scope::All`] for who is not limited, and for `None`, the admin of this host.
    pub(crate) fn scope_of(&self, identity: Option<&Identity>) -> Scope {
        let limit = identity.and_then(|it| self.limits.get(&(it.role, it.name.as_str().to_ascii_lowercase())));
        match limit {
            Some(labels) if !labels.is_empty() => Scope::Machines(labels.clone()),
            Some(_) | None => Scope::All,
        }
    }

    /// Whether a machine is within a scope. A machine without a record is in no limited scope.
    pub(crate) fn allows(&self, scope: &Scope, machine: &MachineName) -> bool {
        match scope {
            Scope::All => true,
            Scope::Machines(wanted) => self
                .labels_of(machine)
                .is_some_and(|has| wanted.iter().all(|(key, value)| has.get(key) == Some(value))),
        }
    }
}

/// The machines that an asker may use or see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every machine.
    All,
    /// Those whose records have all of these labels.
    Machines(Labels),
}

/// Shares the present view. Clones are handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewHandle(Arc<RwLock<Arc<View>>>);

impl ViewHandle {
    /// The view as of now.
    pub(crate) fn get(&self) -> Arc<View> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the view.
    pub(crate) fn set(&self, view: View) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}
