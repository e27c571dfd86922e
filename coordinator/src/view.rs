//! What the records say that others must know at once: labels of machines, and the machines that an asker is limited to.
//!
//! Written by the registry after each change that is stored; read without waiting. What is long (a follower) waits for the next one.

use dora_remote_protocol::{
    dataflow::Labels,
    identity::{Identity, Role},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::watch;

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

    /// The labels of a machine as people and placement see them: what it says of itself, and over that what its record says.
    pub(crate) fn overlaid(&self, machine: &MachineName, said: &Labels) -> Labels {
        let mut labels = said.clone();
        if let Some(record) = self.labels_of(machine) {
            labels.extend(record.clone());
        }
        labels
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

impl Scope {
    /// The no to one who names a machine outside. Says nothing of whether there is such a machine.
    pub(crate) fn denial(&self, wish: impl fmt::Display, machine: &MachineName) -> Refusal {
        Refusal::new(
            RefusalCode::Denied,
            format!("{wish}: machine `{machine}` is not among those that you are limited to ({self})"),
        )
        .hint("`dora-remote machines` lists yours; an admin may widen the limit, with labels of the machine or a new invite for you")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all machines"),
            Self::Machines(labels) => {
                let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "machines with {}", pairs.join(", "))
            }
        }
    }
}

/// Shares the present view. Clones are handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewHandle(Arc<watch::Sender<Arc<View>>>);

impl ViewHandle {
    /// The view as of now.
    pub(crate) fn get(&self) -> Arc<View> {
        Arc::clone(&self.0.borrow())
    }

    /// Replaces the view.
    pub(crate) fn set(&self, view: View) {
        self.0.send_replace(Arc::new(view));
    }

    /// Wakes those who wait for the next view, because what it is applied to has changed.
    pub(crate) fn touch(&self) {
        self.0.send_modify(|_| {});
    }

    /// Hears of each view that follows.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_met_by_the_record_of_a_machine_alone() {
        let mut view = View::default();
        view.label(&name("Arm-1"), labels(&[("team", "arm"), ("site", "lab")]));
        view.label(&name("leg-1"), labels(&[("team", "leg")]));
        view.limit(&person(Role::Operator, "ann"), labels(&[("team", "arm")]));
        view.limit(&person(Role::Operator, "bob"), Labels::new());
        let scope = view.scope_of(Some(&person(Role::Operator, "ANN")));
        assert_eq!(scope.to_string(), "machines with team=arm");
        assert!(view.allows(&scope, &name("arm-1")), "names that differ in case are one");
        assert!(!view.allows(&scope, &name("leg-1")));
        assert!(!view.allows(&scope, &name("new")), "who has no record is in no limited scope");
        for unlimited in [
            view.scope_of(None),
            view.scope_of(Some(&person(Role::Operator, "bob"))),
            view.scope_of(Some(&person(Role::Viewer, "ann"))),
        ] {
            assert_eq!(unlimited, Scope::All);
            assert!(view.allows(&unlimited, &name("new")));
        }
    }

    #[test]
    fn the_record_wins_over_what_a_machine_says_of_itself() {
        let mut view = View::default();
        view.label(&name("arm-1"), labels(&[("team", "arm")]));
        let said = labels(&[("team", "leg"), ("gpu", "1")]);
        assert_eq!(view.overlaid(&name("ARM-1"), &said), labels(&[("gpu", "1"), ("team", "arm")]));
        assert_eq!(view.overlaid(&name("other"), &said), said);
    }

    fn name(text: &str) -> MachineName {
        text.parse().unwrap()
    }

    fn person(role: Role, name: &str) -> Identity {
        Identity {
            trust_domain: "lab".parse().unwrap(),
            role,
            name: name.parse().unwrap(),
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }
}
