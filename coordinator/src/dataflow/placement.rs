//! Which machine runs which node. Pure: the machines are an argument.
//!
//! `deploy.machine` goes before `deploy.labels`; nodes that ask for nothing go together to the default machine, else to the
//! only connected one. Nothing is guessed: what cannot be decided is refused, with the machines that there are. For one who is limited
//! to some machines, there are no others.

use crate::view::Scope;
use dora_remote_protocol::{
    dataflow::{Labels, NodeSpec, PlacedNode},
    name::MachineName,
    refusal::{Refusal, RefusalCode},
};

/// A machine that could run nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: MachineName,
    pub(crate) labels: Labels,
    pub(crate) is_connected: bool,
    /// Seconds since it was last heard.
    pub(crate) silent_for_secs: u64,
}

/// Gives every node a machine; `machines` are those within the scope of the starter, in the order of their names.
pub(crate) fn place(
    nodes: &[NodeSpec],
    default_machine: Option<&MachineName>,
    machines: &[Candidate],
    scope: &Scope,
) -> Result<Vec<PlacedNode>, Refusal> {
    let ground = Ground { machines, scope };
    nodes
        .iter()
        .map(|node| {
            Ok(PlacedNode {
                id: node.id.clone(),
                machine: ground.machine_for(node, default_machine)?,
                dynamic: node.dynamic,
            })
        })
        .collect()
}

/// The machines that a starter may use.
struct Ground<'a> {
    machines: &'a [Candidate],
    scope: &'a Scope,
}

impl Ground<'_> {
    fn machine_for(&self, node: &NodeSpec, default_machine: Option<&MachineName>) -> Result<MachineName, Refusal> {
        if let Some(name) = &node.machine {
            return self.named(name, &format!("node `{}` asks for machine `{name}`", node.id));
        }
        if !node.labels.is_empty() {
            return self.labelled(node);
        }
        if let Some(name) = default_machine {
            return self.named(name, &format!("machine `{name}` shall run the nodes that name none"));
        }
        let mut connected = self.machines.iter().filter(|machine| machine.is_connected);
        match (connected.next(), connected.next()) {
            (Some(only), None) => Ok(only.name.clone()),
            (None, _) => {
                let code = if self.machines.is_empty() {
                    RefusalCode::UnknownMachine
                } else {
                    RefusalCode::MachineUnreachable
                };
                Err(
                    Refusal::new(code, format!("no machine is connected to run node `{}`", node.id))
                        .hint(format!("{}; run `dora-remote daemon` on a machine", self.listed())),
                )
            }
            (Some(_), Some(_)) => Err(Refusal::new(
                RefusalCode::PlacementAmbiguous,
                format!("node `{}` names no machine, and several are connected", node.id),
            )
            .hint(format!("{}; choose one with `--machine NAME`", self.listed()))),
        }
    }

    fn named(&self, name: &MachineName, wish: &str) -> Result<MachineName, Refusal> {
        let Some(machine) = self.machines.iter().find(|machine| machine.name.same_as(name)) else {
            return Err(match self.scope {
                Scope::All => {
                    Refusal::new(RefusalCode::UnknownMachine, format!("{wish}, which is not known")).hint(self.listed())
                }
                Scope::Machines(_) => self.scope.denial(wish, name),
            });
        };
        if !machine.is_connected {
            let message = format!(
                "{wish}, which cannot be reached (last heard {} s ago)",
                machine.silent_for_secs
            );
            return Err(Refusal::new(RefusalCode::MachineUnreachable, message).hint(self.listed()));
        }
        Ok(machine.name.clone())
    }

    fn labelled(&self, node: &NodeSpec) -> Result<MachineName, Refusal> {
        let has_all = |machine: &&Candidate| node.labels.iter().all(|(key, value)| machine.labels.get(key) == Some(value));
        if let Some(machine) = self.machines.iter().filter(|machine| machine.is_connected).find(has_all) {
            return Ok(machine.name.clone());
        }
        let mut message = format!(
            "no connected machine has the labels {} that node `{}` asks for",
            shown(&node.labels),
            node.id
        );
        let absent: Vec<_> = self
            .machines
            .iter()
            .filter(has_all)
            .map(|machine| format!("`{}`", machine.name))
            .collect();
        if !absent.is_empty() {
            message.push_str(&format!(" ({} has them and cannot be reached)", absent.join(", ")));
        }
        let labels: Vec<_> = self
            .machines
            .iter()
            .map(|machine| format!("{} {}", machine.name, shown(&machine.labels)))
            .collect();
        let hint = if labels.is_empty() {
            self.listed()
        } else {
            format!("machines and their labels: {}{}", labels.join(", "), self.limit())
        };
        Err(Refusal::new(RefusalCode::NoMachineWithLabels, message).hint(hint))
    }

    fn listed(&self) -> String {
        const MOST: usize = 20;
        if self.machines.is_empty() {
            return format!("no machine has ever joined{}", self.limit());
        }
        let name = |machine: &Candidate| {
            let reach = if machine.is_connected { "connected" } else { "unreachable" };
            format!("{} ({reach})", machine.name)
        };
        let names: Vec<_> = self.machines.iter().take(MOST).map(name).collect();
        let more = self.machines.len().saturating_sub(MOST);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("known machines: {}{more}{}", names.join(", "), self.limit())
    }

    /// What is to be said to one who does not see all machines.
    fn limit(&self) -> String {
        match self.scope {
            Scope::All => String::new(),
            Scope::Machines(_) => format!(" (you are limited to {})", self.scope),
        }
    }
}

fn shown(labels: &Labels) -> String {
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wish_finds_its_machine() {
        let machines = [
            machine("alpha", "arm=left", true),
            machine("beta", "arm=right", true),
            machine("gone", "gpu=1", false),
        ];
        // Pin, labels, default machine, and what comes of them.
        let cases = [
            (Some("beta"), "", None, Ok("beta")),
            (Some("BETA"), "", None, Ok("beta")),
            (Some("beta"), "arm=left", None, Ok("beta")),
            (None, "arm=right", None, Ok("beta")),
            (None, "arm=right", Some("alpha"), Ok("beta")),
            (None, "", Some("Alpha"), Ok("alpha")),
            (None, "", None, Err(RefusalCode::PlacementAmbiguous)),
            (Some("nobody"), "", None, Err(RefusalCode::UnknownMachine)),
            (Some("gone"), "", None, Err(RefusalCode::MachineUnreachable)),
            (None, "", Some("gone"), Err(RefusalCode::MachineUnreachable)),
            (None, "gpu=1", None, Err(RefusalCode::NoMachineWithLabels)),
            (None, "gpu=2", None, Err(RefusalCode::NoMachineWithLabels)),
        ];
        for (pin, labels, default, wanted) in cases {
            let default = default.map(|name: &str| name.parse().unwrap());
            let placed = place(&[node(pin, labels)], default.as_ref(), &machines, &Scope::All);
            let got = placed
                .as_ref()
                .map(|nodes| nodes[0].machine.as_str())
                .map_err(|refusal| refusal.code);
            assert_eq!(got, wanted, "{pin:?} {labels:?} {default:?}: {placed:?}");
        }
    }

    #[test]
    fn the_only_connected_machine_runs_what_names_none() {
        let machines = [machine("alpha", "", false), machine("beta", "", true)];
        assert_eq!(
            place(&[node(None, "")], None, &machines, &Scope::All).unwrap()[0]
                .machine
                .as_str(),
            "beta"
        );
        assert_eq!(
            place(&[node(None, "")], None, &machines[..1], &Scope::All).unwrap_err().code,
            RefusalCode::MachineUnreachable
        );
        assert_eq!(
            place(&[node(None, "")], None, &[], &Scope::All).unwrap_err().code,
            RefusalCode::UnknownMachine
        );
    }

    #[test]
    fn refusals_name_the_machines_and_the_way_out() {
        let machines = [machine("alpha", "arm=left", true), machine("beta", "gpu=1", false)];
        let refusal = place(&[node(None, "gpu=1")], None, &machines, &Scope::All).unwrap_err();
        assert!(
            refusal.message.contains("{gpu=1}") && refusal.message.contains("`n`"),
            "{refusal:?}"
        );
        assert!(
            refusal.message.contains("`beta` has them") && refusal.hint.contains("alpha {arm=left}"),
            "{refusal:?}"
        );
        let both = [machine("alpha", "", true), machine("beta", "", true)];
        let refusal = place(&[node(None, "")], None, &both, &Scope::All).unwrap_err();
        assert!(
            refusal.hint.contains("alpha (connected), beta (connected)") && refusal.hint.contains("--machine"),
            "{refusal:?}"
        );
        let refusal = place(&[node(Some("beta"), "")], None, &machines, &Scope::All).unwrap_err();
        assert!(refusal.message.contains("last heard 60 s ago"), "{refusal:?}");
    }

    #[test]
    fn one_who_is_limited_sees_no_other_machines() {
        let scope = Scope::Machines(labels("team=arm"));
        let machines = [machine("alpha", "team=arm", true), machine("beta", "team=arm", false)];
        let place = |node: NodeSpec, default: Option<&str>| {
            let default = default.map(|name| name.parse().unwrap());
            place(&[node], default.as_ref(), &machines, &scope)
        };
        let only = place(node(None, ""), None).unwrap();
        assert_eq!(
            only[0].machine.as_str(),
            "alpha",
            "the only connected one of those within the limit"
        );
        for refused in [place(node(Some("leg"), ""), None), place(node(None, ""), Some("leg"))] {
            let refusal = refused.unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Denied);
            assert!(
                refusal.message.contains("`leg`") && refusal.message.contains("machines with team=arm"),
                "{refusal:?}"
            );
        }
        assert!(
            place(node(Some("alpha"), ""), Some("leg")).is_ok(),
            "a default that is not used is not judged"
        );
        let refusal = place(node(None, "gpu=1"), None).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NoMachineWithLabels);
        assert!(refusal.hint.contains("limited to machines with team=arm"), "{refusal:?}");
        let none = super::place(&[node(None, "")], None, &[], &scope).unwrap_err();
        assert!(
            none.code == RefusalCode::UnknownMachine && none.hint.contains("team=arm"),
            "{none:?}"
        );
    }

    fn machine(name: &str, labels: &str, is_connected: bool) -> Candidate {
        Candidate {
            name: name.parse().unwrap(),
            labels: self::labels(labels),
            is_connected,
            silent_for_secs: 60,
        }
    }

    fn node(machine: Option<&str>, labels: &str) -> NodeSpec {
        NodeSpec {
            id: "n".parse().unwrap(),
            machine: machine.map(|name| name.parse().unwrap()),
            labels: self::labels(labels),
            dynamic: false,
        }
    }

    fn labels(text: &str) -> Labels {
        text.split_once('=')
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}
