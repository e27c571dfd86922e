//! The JSON that travels between this process's coordinator shim and dora's daemon: envelopes, timestamps, parsing.
//!
//! A newer daemon may say more than this build knows, so that unknown frames become [`Incoming::Unknown`] and never an error
//! that ends the connection.

use dora_message::{
    common::{DaemonId, Timestamped},
    coordinator_to_daemon::{DaemonCoordinatorEvent, RegisterResult},
    daemon_to_coordinator::{DaemonCoordinatorReply, DaemonEvent, DaemonRegisterRequest},
    uhlc::HLC,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

/// What the daemon can say.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Its first words.
    Register(Box<DaemonRegisterRequest>),
    /// Something happened.
    Event(Box<DaemonEvent>),
    /// The answer to a command.
    Reply {
        /// Id of the command.
        id: Uuid,
        /// The answer, or dora's words when it could not make one.
        reply: Result<DaemonCoordinatorReply, String>,
    },
    /// Something that this build does not know.
    Unknown {
        /// What it seems to be.
        what: String,
    },
}

/// A text that is no frame of dora's protocol at all.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    /// Not JSON.
    #[error("dora's daemon sent a text that is no JSON: {0}")]
    NoJson(#[source] serde_json::Error),
    /// A value that cannot be written as JSON.
    #[error("a frame for dora's daemon cannot be written: {0}")]
    Encode(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct Envelope<T> {
    id: Uuid,
    method: &'static str,
    params: Timestamped<T>,
}

/// The answer to a registration.
pub(crate) fn register_reply(clock: &HLC, result: RegisterResult) -> Result<String, WireError> {
    envelope(clock, Uuid::new_v4(), "daemon_event", result)
}

/// A command. Its answer comes under `id`, if the daemon answers this command at all.
pub(crate) fn command(clock: &HLC, id: Uuid, event: DaemonCoordinatorEvent) -> Result<String, WireError> {
    envelope(clock, id, "daemon_command", event)
}

/// The id under which the daemon registers here.
pub(crate) fn daemon_id(machine: &str) -> DaemonId {
    DaemonId::new(Some(machine.to_owned()))
}

/// Reads one frame.
pub(crate) fn parse(text: &str) -> Result<Incoming, WireError> {
    let mut frame: Value = serde_json::from_str(text).map_err(WireError::NoJson)?;
    if frame.get("method").is_none() {
        return Ok(reply(&mut frame));
    }
    let inner = frame.pointer_mut("/params/inner").map(Value::take).unwrap_or_default();
    let Value::Object(mut inner) = inner else {
        return Ok(unknown(&inner, None));
    };
    if let Some(register) = inner.remove("Register") {
        return Ok(
            serde_json::from_value(register).map_or_else(|error| unknown(&"Register".into(), Some(&error)), Incoming::Register)
        );
    }
    let Some(event) = inner
        .get_mut("Event")
        .and_then(|event| event.get_mut("event"))
        .map(Value::take)
    else {
        return Ok(unknown(&Value::Object(inner), None));
    };
    let name = name_of(&event);
    Ok(serde_json::from_value(event).map_or_else(|error| unknown(&name.into(), Some(&error)), Incoming::Event))
}

fn envelope<T: Serialize>(clock: &HLC, id: Uuid, method: &'static str, inner: T) -> Result<String, WireError> {
    let params = Timestamped {
        inner,
        timestamp: clock.new_timestamp(),
    };
    serde_json::to_string(&Envelope { id, method, params }).map_err(WireError::Encode)
}

fn reply(frame: &mut Value) -> Incoming {
    let Some(id) = frame
        .get("id")
        .and_then(Value::as_str)
        .and_then(|id| Uuid::parse_str(id).ok())
    else {
        return unknown(frame, None);
    };
    if let Some(error) = frame.get("error").and_then(Value::as_str) {
        return Incoming::Reply {
            id,
            reply: Err(error.to_owned()),
        };
    }
    let result = frame.get_mut("result").map(Value::take).unwrap_or_default();
    let name = name_of(&result);
    let reply =
        serde_json::from_value(result).map_err(|error| format!("an answer `{name}` that this build cannot read: {error}"));
    Incoming::Reply { id, reply }
}

fn unknown(value: &Value, error: Option<&serde_json::Error>) -> Incoming {
    let name = name_of(value);
    Incoming::Unknown {
        what: error.map_or_else(|| name.clone(), |error| format!("{name}: {error}")),
    }
}

/// The variant of an externally tagged enum; never its content, which may be long or secret.
fn name_of(value: &Value) -> String {
    match value {
        Value::String(name) => name.chars().take(64).collect(),
        Value::Object(map) => map.keys().next().cloned().unwrap_or_else(|| "{}".to_owned()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => "something without a name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_events_are_named_and_do_no_harm() {
        let text = r#"{"id":"x","method":"daemon_event","params":{"inner":{"Event":{"daemon_id":{},"event":{"Dance":{"steps":3}}}},"timestamp":{}}}"#;
        let Incoming::Unknown { what } = parse(text).expect("JSON") else {
            panic!("a dance is not known");
        };
        assert!(what.starts_with("Dance"), "{what}");
        assert!(matches!(parse("[]").expect("JSON"), Incoming::Unknown { .. }));
        assert!(matches!(parse("no JSON"), Err(WireError::NoJson(_))));
    }

    #[test]
    fn events_and_replies_are_read() {
        let text = r#"{"id":"x","method":"daemon_event","params":{"inner":{"Event":{"daemon_id":{"machine_id":"m","uuid":"00000000-0000-0000-0000-000000000001"},
            "event":{"NodeStopped":{"dataflow_id":"00000000-0000-0000-0000-000000000002","node_id":"n","clean_stop":true}}}},"timestamp":{}}}"#;
        let Incoming::Event(event) = parse(text).expect("JSON") else {
            panic!("an event");
        };
        assert!(matches!(*event, DaemonEvent::NodeStopped { clean_stop: true, .. }));
        let text = r#"{"id":"00000000-0000-0000-0000-000000000003","result":{"StopResult":{"Err":"no"}}}"#;
        let Incoming::Reply { reply: Ok(reply), .. } = parse(text).expect("JSON") else {
            panic!("a reply");
        };
        assert!(matches!(reply, DaemonCoordinatorReply::StopResult(Err(text)) if text == "no"));
    }

    #[test]
    fn commands_carry_their_id_and_a_timestamp_with_an_array() {
        let id = Uuid::from_u128(7);
        let text = command(&HLC::default(), id, DaemonCoordinatorEvent::Heartbeat).expect("writes");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["id"], id.to_string());
        assert_eq!(value["method"], "daemon_command");
        assert_eq!(value["params"]["inner"], "Heartbeat");
        assert_eq!(value["params"]["timestamp"]["id"].as_array().map(Vec::len), Some(16));
    }
}
