//! `dunlin health`: is a broker ready? For containers, whose images have no other program to ask it.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use hyper::HeaderMap;
use tokio::runtime;

use super::{FAILURE, USAGE, complain, print};
use crate::{
    auth::http::{AnswerLimits, Service},
    config::auth::url::{HttpUrl, PlainHttp},
};

/// Bytes of the answer at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 0 if the answer is 200, else 1 and the reason.\n\n\
Examples:
  dunlin health --url http://127.0.0.1:18830/readyz
                                               Does the service at this URL answer with 200?")]
pub(super) struct Arguments {
    /// What is asked: an http or https URL
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:18830/readyz")]
    url: String,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

pub(super) fn main(arguments: &Arguments) -> ExitCode {
    // Nothing is sent that plain HTTP could give away.
    let url = match HttpUrl::parse(&arguments.url, PlainHttp::Anywhere) {
        Ok(url) => url,
        Err(error) => {
            complain(format_args!("--url: {error}"));
            return USAGE.into();
        }
    };
    match ask(url, Duration::from_secs(arguments.timeout)) {
        Ok(()) => print(format!("{}: ok\n", arguments.url)),
        Err(why) => {
            complain(format_args!("{}: {why}", arguments.url));
            FAILURE.into()
        }
    }
}

fn ask(url: HttpUrl, timeout: Duration) -> Result<(), String> {
    let limits = AnswerLimits { timeout, bytes_max: ANSWER_BYTES_MAX };
    let service = Service::new(url, None, HeaderMap::new(), limits).map_err(|error| error.to_string())?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(service.get()).map(drop).map_err(|error| error.to_string())
}
