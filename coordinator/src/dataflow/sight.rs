//! Which machines and dataflows one asker may see and use, by the records of one moment. Pure.
//!
//! A dataflow is within a limit when every machine that has a part of it is: what crosses the border belongs to somebody else as well.

use super::record::Record;
use crate::{
    asker::Asker,
    view::{Scope, View},
};
use dora_remote_protocol::{name::MachineName, refusal::Refusal};
use std::sync::Arc;

/// What one asker may see and use.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    view: Arc<View>,
    scope: Scope,
}

impl Sight {
    pub(crate) fn of(view: Arc<View>, asker: &Asker) -> Self {
        let scope = view.scope_of(asker.identity.as_ref());
        Self { view, scope }
    }

    /// The sight of one who is not limited.
    pub(crate) fn all() -> Self {
        Self {
            view: Arc::default(),
            scope: Scope::All,
        }
    }

    pub(crate) const fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Whether a machine is within the asker's limit.
    pub(crate) fn has_machine(&self, machine: &MachineName) -> bool {
        self.view.allows(&self.scope, machine)
    }

    /// Whether every part of a dataflow is.
    pub(crate) fn has(&self, record: &Record) -> bool {
        self.beyond(record).is_none()
    }

    /// Refuses a dataflow that has a part beyond the asker's limit.
    pub(crate) fn check(&self, record: &Record) -> Result<(), Refusal> {
        match self.beyond(record) {
            None => Ok(()),
            Some(machine) => {
                let wish = format!(
                    "the dataflow `{}` has a part that is not yours to see or to stop",
                    record.name
                );
                Err(self.scope.denial(wish, machine))
            }
        }
    }

    fn beyond<'a>(&self, record: &'a Record) -> Option<&'a MachineName> {
        record.parts.keys().find(|machine| !self.has_machine(machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::samples;
    use dora_remote_protocol::{
        dataflow::{DataflowState, Labels},
        identity::{Identity, Role},
        ids::RequestId,
        refusal::RefusalCode,
    };
    use uuid::Uuid;

    #[test]
    fn a_dataflow_with_any_part_beyond_the_limit_is_not_seen() {
        let ann = Identity {
            trust_domain: "lab".parse().unwrap(),
            role: Role::Operator,
            name: "ann".parse().unwrap(),
        };
        let arm = Labels::from([("team".to_owned(), "arm".to_owned())]);
        let mut view = View::default();
        view.label(&samples::machine("a"), arm.clone());
        view.label(&samples::machine("b"), Labels::new());
        view.limit(&ann, arm);
        let view = Arc::new(view);
        let asker = |identity| Asker {
            who: String::new(),
            identity,
            serial: String::new(),
            from: String::new(),
            request_id: RequestId(Uuid::nil()),
        };
        let (ann, admin) = (Sight::of(Arc::clone(&view), &asker(Some(ann))), Sight::of(view, &asker(None)));
        let on = |machines: &[&str]| samples::record_on(1, "flow", DataflowState::Running, machines);
        for (machines, beyond) in [
            (&["a"][..], None),
            (&["a", "b"], Some("`b`")),
            (&["b"], Some("`b`")),
            (&["a", "new"], Some("`new`")),
        ] {
            let record = on(machines);
            assert!(admin.has(&record) && admin.check(&record).is_ok());
            assert_eq!(ann.has(&record), beyond.is_none(), "{machines:?}");
            match (ann.check(&record), beyond) {
                (Ok(()), None) => {}
                (Err(refusal), Some(machine)) => {
                    assert_eq!(refusal.code, RefusalCode::Denied);
                    let told = [machine, "`flow`", "team=arm"];
                    assert!(told.iter().all(|text| refusal.message.contains(text)), "{refusal:?}");
                }
                (checked, _) => panic!("{machines:?}: {checked:?}"),
            }
        }
    }
}
