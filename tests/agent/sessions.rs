//! Sessions with a real server, by the agent as it is shipped.

use transfer::proto::HostBytes;
use transfer::proto::command::{Answer, Command as Order, FromAgent};
use transfer::proto::server::{Login, SqlReply, Statements};

use super::controller::{Agent, NOBODY, Sandbox, eventually, is_root};
use super::support::database::Database;

/// Number of statements of the tests that the server executes.
const RUNNING: &str = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";

fn login(database: &Database) -> Login {
    let [socket, defaults_file] = [database.socket(), database.options()].map(|path| HostBytes::from(&path));
    Login { socket, defaults_file }
}

fn statements(agent: &Agent, text: &str) -> Statements {
    Statements { text: agent.seal(text), seconds: 600 }
}

fn running(agent: &mut Agent, login: &Login) -> String {
    let statements = statements(agent, RUNNING);
    let Ok(Answer::Sql(SqlReply::Ok(answer))) =
        agent.call(Order::Query { login: login.clone(), unit: None, statements })
    else {
        panic!("no answer")
    };
    answer.sets[0].rows[0][0].as_ref().unwrap().to_string()
}

/// Opens a session that executes a statement that takes very long.
fn sleep(agent: &mut Agent, login: &Login) -> u32 {
    let opened = agent.call(Order::OpenSession { login: login.clone(), unit: None });
    let Ok(Answer::Session(session)) = opened else { panic!("{opened:?}") };
    let statements = Some(statements(agent, "SELECT SLEEP(600)"));
    agent.post(Order::Execute { session, statements });
    session
}

#[test]
fn statements_end_with_their_session_and_with_their_agent() {
    let account = if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() };
    let Some([database]) = Database::all(account, [1]) else { return };
    let (sandbox, login) = (Sandbox::new(), login(&database));
    let mut other = Agent::start(&sandbox);
    let mut agent = Agent::start(&sandbox);
    let session = sleep(&mut agent, &login);
    assert!(eventually(|| running(&mut other, &login) == "1"));
    agent.post(Order::CloseSession { session });
    let closed = [agent.read().unwrap(), agent.read().unwrap()];
    assert!(
        closed.iter().any(|message| matches!(message, FromAgent::Reply { result: Ok(Answer::Done), .. }))
    );
    let is_cancelled = |message: &FromAgent| match message {
        FromAgent::Reply { result: Ok(Answer::Sql(Err(failure))), .. } => {
            failure.message.as_str().contains("cancelled")
        }
        _ => false,
    };
    assert!(closed.iter().any(is_cancelled), "{closed:?}");
    assert!(eventually(|| running(&mut other, &login) == "0"));
    for is_released in [true, false] {
        let mut agent = Agent::start(&sandbox);
        sleep(&mut agent, &login);
        sleep(&mut agent, &login);
        assert!(eventually(|| running(&mut other, &login) == "2"));
        if is_released {
            agent.end();
        } else {
            agent.input = None;
        }
        assert!(agent.child.wait().unwrap().success());
        // At once: the rollback must not meet them.
        assert_eq!(running(&mut other, &login), "0");
    }
}
