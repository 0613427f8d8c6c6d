//! A service: this process asks, and starts itself again three times to calculate. One calculator is killed in the
//! middle of a call, and nobody but the caller's stopwatch notices.
//!
//! `cargo run --example calculator`

use std::process::{Child, Command};
use std::time::Duration;
use windlass::schemas::calculator_capnp::{answer, question, Operation};
use windlass::{Bus, CallError, Service};

type Calculator = Service<question::Owned, answer::Owned>;
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const DEADLINE: Duration = Duration::from_secs(10);

fn main() -> Outcome {
    let name = format!("example-calculator-{}", std::process::id());
    if let Some(bus) = std::env::args().nth(1) {
        return serve(&Bus::open(&bus)?.service("calculator").open()?);
    }
    let asked = ask(&name);
    Bus::remove(&name)?;
    asked
}

fn serve(service: &Calculator) -> Outcome {
    // Until the service is closed. An error goes to the caller as text.
    service.server()?.serve(|question, mut answer| {
        let (left, right) = (question.get_left(), question.get_right());
        let value = match question.get_operation()? {
            Operation::Add => left + right,
            Operation::Multiply => left * right,
            Operation::Divide if right == 0.0 => {
                return Err(capnp::Error::failed(format!("{left} cannot be divided by zero")));
            }
            Operation::Divide => left / right,
        };
        answer.set_value(value);
        answer.set_server(std::process::id());
        Ok(())
    })?;
    Ok(())
}

fn ask(name: &str) -> Outcome {
    let service: Calculator = Bus::open(name)?.service("calculator").open()?;
    let start = || Command::new(std::env::current_exe()?).arg(name).spawn();
    let mut servers = [start()?, start()?, start()?];
    let client = service.client()?;
    let calculate = |operation, left: f64, right: f64| -> Result<(f64, u32), CallError> {
        let build = |mut question: question::Builder<'_>| {
            question.set_operation(operation);
            question.set_left(left);
            question.set_right(right);
        };
        let response = client.call(build, DEADLINE)?;
        let answer = response.get().map_err(|error| CallError::Failed(error.to_string()))?;
        Ok((answer.get_value(), answer.get_server()))
    };
    assert_eq!(calculate(Operation::Multiply, 6.0, 7.0)?.0, 42.0);
    let refused = calculate(Operation::Divide, 1.0, 0.0).expect_err("the server says so");
    println!("{refused}");

    // Every answer comes, although one of those who calculate is killed on the way.
    let mut calculators = std::collections::BTreeSet::new();
    for number in 0..20_000u32 {
        if number == 10_000 {
            servers[0].kill()?;
        }
        let (sum, server) = calculate(Operation::Add, number.into(), 1.0)?;
        assert_eq!(sum, f64::from(number) + 1.0);
        calculators.insert(server);
    }
    println!("{} processes have calculated 20000 sums", calculators.len());
    service.close();
    servers.iter_mut().try_for_each(|server: &mut Child| server.wait().map(drop))?;
    Ok(())
}
