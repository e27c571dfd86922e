//! Tests of the shim against a daemon of our own making.

use super::*;
use dora_message::daemon_to_coordinator::DaemonRegisterRequest;
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc};
use tokio_tungstenite::client_async;

const TOKEN: &str = "5ec2e7";

struct Daemon(Socket);

impl Daemon {
    /// Connects with this token; nothing when it is turned away.
    async fn connect(address: SocketAddr, token: &str, path: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let request = tungstenite::http::Request::builder()
            .uri(format!("ws://{address}{path}"))
            .header("Host", address.to_string())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
            .header("Authorization", format!("Bearer {token}"))
            .body(())
            .expect("a request");
        client_async(request, stream).await.ok().map(|(socket, _)| Self(socket))
    }

    async fn register(&mut self) -> Value {
        let request = DaemonRegisterRequest::new(Some("here".to_owned()), [].into());
        let inner = json!({"Register": request});
        self.say(json!({"id": Uuid::nil(), "method": "daemon_event", "params": {"inner": inner, "timestamp": null}}))
            .await;
        self.hear().await
    }

    async fn say(&mut self, what: Value) {
        self.0.send(Message::text(what.to_string())).await.expect("the shim reads");
    }

    async fn hear(&mut self) -> Value {
        let message = self.0.next().await.expect("the shim talks").expect("whole");
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    }

    /// The next command that is no heartbeat.
    async fn command(&mut self) -> Value {
        loop {
            let heard = self.hear().await;
            if heard["params"]["inner"] != "Heartbeat" {
                return heard;
            }
        }
    }
}

async fn shim() -> (Shim, Commands, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (shim, commands) = Shim::new(listener, TOKEN.to_owned(), "here".to_owned());
    (shim, commands, address)
}

fn stop(dataflow_id: Uuid) -> DaemonCoordinatorEvent {
    DaemonCoordinatorEvent::StopDataflow {
        dataflow_id,
        grace_duration: None,
        force: false,
    }
}

#[tokio::test]
async fn only_one_daemon_with_the_token_gets_in() {
    let (shim, _commands, address) = shim().await;
    let task = tokio::spawn(shim.run(|_| {}));
    assert!(Daemon::connect(address, "guessed", DAEMON_PATH).await.is_none());
    assert!(Daemon::connect(address, TOKEN, "/api/cli").await.is_none());
    let mut daemon = Daemon::connect(address, TOKEN, DAEMON_PATH).await.expect("let in");
    let reply = daemon.register().await;
    assert_eq!(reply["params"]["inner"]["Ok"]["daemon_id"]["machine_id"], "here");
    assert_eq!(daemon.hear().await["params"]["inner"], "Heartbeat", "at once");
    assert!(Daemon::connect(address, TOKEN, DAEMON_PATH).await.is_none(), "one in a life");
    drop(daemon);
    let error = task.await.expect("no panic");
    assert!(matches!(error, ShimError::Closed | ShimError::Broken(_)), "{error}");
}

#[tokio::test]
async fn commands_wait_for_each_other_and_get_their_own_answers() {
    let (shim, commands, address) = shim().await;
    let heard = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&heard);
    let task = tokio::spawn(shim.run(move |_| *counter.lock().expect("whole") += 1));
    let mut daemon = Daemon::connect(address, TOKEN, DAEMON_PATH).await.expect("let in");
    daemon.register().await;

    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let (first, second) = (commands.clone(), commands.clone());
    let first = tokio::spawn(async move { first.ask(stop(one)).await });
    let command = daemon.command().await;
    assert_eq!(command["params"]["inner"]["StopDataflow"]["dataflow_id"], one.to_string());
    let second = tokio::spawn(async move { second.ask(stop(two)).await });
    let inner = json!({"Event": {"daemon_id": {}, "event": {"Heartbeat": {"ft_stats": null}}}});
    daemon
        .say(json!({"id": Uuid::nil(), "method": "daemon_event", "params": {"inner": inner, "timestamp": null}}))
        .await;
    daemon
        .say(json!({"id": Uuid::nil(), "result": {"StopResult": {"Ok": null}}}))
        .await;
    daemon
        .say(json!({"id": command["id"], "result": {"StopResult": {"Err": "one"}}}))
        .await;
    let answer = first.await.expect("no panic").expect("an answer");
    assert!(
        matches!(answer, DaemonCoordinatorReply::StopResult(Err(text)) if text == "one"),
        "an answer under another id is nobody's"
    );
    let command = daemon.command().await;
    assert_eq!(command["params"]["inner"]["StopDataflow"]["dataflow_id"], two.to_string());
    daemon.say(json!({"id": command["id"], "result": {"Surprise": 3}})).await;
    let answer = second.await.expect("no panic");
    assert!(matches!(answer, Err(CommandError::Unreadable(_))), "{answer:?}");
    assert_eq!(*heard.lock().expect("whole"), 1);

    let third = tokio::spawn(async move { commands.ask(stop(one)).await });
    daemon.command().await;
    drop(daemon);
    task.await.expect("no panic");
    assert!(matches!(third.await.expect("no panic"), Err(CommandError::Gone)));
}
