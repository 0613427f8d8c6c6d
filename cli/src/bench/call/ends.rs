//! The two ends of a service, as the loops of `transport` use them: the driver calls, the peer serves.
//!
//! A request carries its sequence, the response the same one; both sides check.

use std::time::{Duration, Instant};

use ::windlass::{Call, Client, Payload, Raw, Server, Service, Wait};

use crate::bench::failure::{During, Failure, Result};
use crate::bench::payload::{Check, Copied};
use crate::bench::private;
use crate::bench::sample_capnp::sample;
use crate::bench::transport::{Context, End, Side, Spec};
use crate::bench::windlass::Bus;

/// Longer than any round, unless the peer is dead: then the watch ends the run.
const DEADLINE: Duration = Duration::from_secs(30);

/// The service of a case, with the defaults of the library.
pub fn service<T: Payload>(bus: &Bus, name: &str) -> Result<Service<T, T>> {
    bus.service::<T, T>(name).open().during("cannot open a service")
}

/// What is asked and answered.
pub trait Talk: Payload + Sized {
    /// Makes a call with request `sequence` and checks its response.
    fn ask(
        client: &Client<Self, Self>,
        sequence: u64,
        buffer: &mut Copied,
        check: &mut Check,
    ) -> Result<()>;

    /// Checks a request and answers it.
    fn answer(call: Call<'_, Self, Self>, check: &mut Check) -> Result<()>;
}

impl Talk for Raw {
    #[inline]
    fn ask(
        client: &Client<Raw, Raw>,
        sequence: u64,
        buffer: &mut Copied,
        check: &mut Check,
    ) -> Result<()> {
        let response = client.call(buffer.made(sequence), DEADLINE).during("cannot call")?;
        check.bytes(response.bytes());
        Ok(())
    }

    #[inline]
    fn answer(call: Call<'_, Raw, Raw>, check: &mut Check) -> Result<()> {
        let echo = |request: &[u8], space: &mut [u8]| -> std::result::Result<usize, Failure> {
            check.bytes(request);
            space[..request.len()].copy_from_slice(request);
            Ok(request.len())
        };
        call.respond(echo).during("cannot answer")
    }
}

impl Talk for sample::Owned {
    #[inline]
    fn ask(
        client: &Client<Self, Self>,
        sequence: u64,
        _buffer: &mut Copied,
        check: &mut Check,
    ) -> Result<()> {
        let response = client.call(|request| private::fill(request, sequence), DEADLINE);
        let response = response.during("cannot call")?;
        private::read(response.get().during("cannot open a typed response")?, check)
    }

    #[inline]
    fn answer(call: Call<'_, Self, Self>, check: &mut Check) -> Result<()> {
        let request = call.get().during("cannot open a typed request")?;
        let sequence = request.get_sequence();
        private::read(request, check)?;
        call.reply(|response| private::fill(response, sequence)).during("cannot answer")
    }
}

/// What one process has of a service.
enum Role<T: Payload> {
    Client(Client<T, T>),
    Server(Server<T, T>),
}

struct Ends<T: Payload> {
    role: Role<T>,
    buffer: Copied,
    check: Check,
    asked: u64,
}

/// Opens this process's end of a case.
pub fn open<T: Talk>(context: &Context<'_>, spec: &Spec, side: Side) -> Result<Box<dyn End>> {
    let service = service::<T>(context.bus, &spec.name)?;
    let role = match side {
        Side::Driver => Role::Client(service.client().during("cannot become a client")?),
        Side::Peer => Role::Server(service.server().during("cannot become a server")?),
    };
    let buffer = <Copied as crate::bench::payload::Fill>::new(spec.bytes);
    Ok(Box::new(Ends { role, buffer, check: Check::default(), asked: 0 }))
}

fn wrong_side() -> Failure {
    Failure::new("the plan of the run has this service the other way around")
}

impl<T: Talk> Ends<T> {
    #[inline]
    fn rounds(&mut self, rounds: u32) -> Result<()> {
        let Role::Client(client) = &self.role else { return Err(wrong_side()) };
        for sequence in self.asked..self.asked + u64::from(rounds) {
            T::ask(client, sequence, &mut self.buffer, &mut self.check)?;
        }
        self.asked += u64::from(rounds);
        Ok(())
    }
}

impl<T: Talk> End for Ends<T> {
    fn batches(&mut self, batches: u32, rounds: u32, one_way: &mut Vec<f64>) -> Result<()> {
        for _ in 0..batches {
            let begin = Instant::now();
            self.rounds(rounds)?;
            one_way.push(begin.elapsed().as_nanos() as f64 / f64::from(2 * rounds));
        }
        Ok(())
    }

    fn stamps(&mut self, rounds: u32, stamps: &mut Vec<Instant>) -> Result<()> {
        stamps.push(Instant::now());
        for _ in 0..rounds {
            self.rounds(1)?;
            stamps.push(Instant::now());
        }
        Ok(())
    }

    fn echo(&mut self, count: u64) -> Result<()> {
        let Role::Server(server) = &mut self.role else { return Err(wrong_side()) };
        for _ in 0..count {
            let call = server.take(Wait::Spin).during("cannot take a call")?;
            let call = call.ok_or_else(|| Failure::new("the service was closed in a run"))?;
            T::answer(call, &mut self.check)?;
        }
        Ok(())
    }

    fn source(&mut self, _count: u64) -> Result<()> {
        Err(wrong_side())
    }

    fn sink(&mut self, _count: u64) -> Result<()> {
        Err(wrong_side())
    }

    fn mismatches(&self) -> u64 {
        self.check.mismatches()
    }
}
