//! Questions to the public REST interface: one a second at most, an answer no larger than its limit, and patience.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    market::feed::kraken::{
        backfill::Round,
        rest::{self, RestError},
    },
    model::{Candle, Symbol, Timeframe, Ts},
    runtime::clock::wall_now,
};

/// Between two questions.
const BETWEEN: Duration = Duration::from_secs(1);
/// For one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, bytes; 720 candles are about 60 kB.
const ANSWER_MAX: usize = 4 << 20;
/// The venue's clock is asked so often.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// A question is asked so often before it is given up.
const TRIES: u32 = 6;
/// The first wait after a failure; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Doubled so often at most: four minutes.
const DOUBLED_MAX: u32 = 7;

/// A question that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The venue answered with an error, or with nothing that can be read.
    #[error(transparent)]
    Venue(#[from] RestError),
    /// Nobody answered.
    #[error("{url} does not answer: {why}")]
    Silent {
        /// What was asked.
        url: String,
        /// Why.
        why: String,
    },
}

impl FetchError {
    fn may_pass(&self) -> bool {
        match self {
            FetchError::Venue(error) => error.may_pass(),
            FetchError::Silent { .. } => true,
        }
    }
}

/// Asks, one question at a time.
#[derive(Debug)]
pub struct RestClient {
    http: reqwest::Client,
    base: String,
    next_at: Instant,
}

impl RestClient {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(base: &str) -> Result<RestClient, FetchError> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).user_agent(concat!("triplegain/", env!("CARGO_PKG_VERSION")));
        let base = base.trim_end_matches('/').to_owned();
        let http = client.build().map_err(|error| silent(&base, &error))?;
        Ok(RestClient { http, base, next_at: Instant::now() })
    }

    /// The closed candles after `since`, at most 719.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn candles(
        &mut self,
        symbol: Symbol,
        frame: Timeframe,
        since: Option<Ts>,
    ) -> Result<Vec<Candle>, FetchError> {
        let (body, _) = self.get(&rest::ohlc_path(symbol, frame, since)).await?;
        Ok(rest::candles(&body, frame)?)
    }

    /// As [`RestClient::candles`], asked again with growing waits, six times in all, while the refusal may pass; `later` is told
    /// of each.
    ///
    /// # Errors
    /// The last [`FetchError`].
    pub async fn candles_patiently(
        &mut self,
        symbol: Symbol,
        frame: Timeframe,
        since: Option<Ts>,
        mut later: impl FnMut(&FetchError, Duration),
    ) -> Result<Vec<Candle>, FetchError> {
        let mut tries = 0;
        loop {
            match self.candles(symbol, frame, since).await {
                Err(error) if error.may_pass() && tries + 1 < TRIES => {
                    let wait = wait_after(tries);
                    later(&error, wait);
                    sleep(wait).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Venue minus wall, milliseconds.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn offset_ms(&mut self) -> Result<i64, FetchError> {
        let (body, took) = self.get(rest::TIME_PATH).await?;
        let wall = wall_now();
        let round_trip_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        Ok(rest::offset_ms(rest::time(&body)?, wall, round_trip_ms))
    }

    async fn get(&mut self, path: &str) -> Result<(Vec<u8>, Duration), FetchError> {
        sleep_until(self.next_at).await;
        self.next_at = Instant::now() + BETWEEN;
        let url = format!("{}{path}", self.base);
        let asked = Instant::now();
        let mut answer = self.http.get(&url).send().await.map_err(|error| silent(&url, &error))?;
        let took = asked.elapsed();
        if answer.status() == reqwest::StatusCode::TOO_MANY_REQUESTS {
            return Err(RestError::TooMany.into());
        }
        if !answer.status().is_success() {
            return Err(RestError::Busy(format!("HTTP {}", answer.status())).into());
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| silent(&url, &error))? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(RestError::Odd(format!("the answer is larger than {ANSWER_MAX} bytes")).into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, took))
    }
}

fn silent(url: &str, error: &dyn std::error::Error) -> FetchError {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        why = inner.to_string();
        cause = inner.source();
    }
    FetchError::Silent { url: url.to_owned(), why }
}

/// A symbol's candles are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Which symbol.
    pub symbol: Symbol,
    /// Candles of which length.
    pub frame: Timeframe,
    /// Start of the first candle that may be missing.
    pub from: Option<Ts>,
    /// Given back with the answer.
    pub round: Round,
}

/// What came of a question.
#[derive(Debug)]
pub enum Answer {
    /// Closed candles, oldest first.
    Candles(Wanted, Vec<Candle>),
    /// Given up.
    GivenUp(Wanted, FetchError),
    /// Asked too often or not answered; it is asked again.
    Later(FetchError),
    /// Venue minus wall, milliseconds.
    Offset(i64),
}

struct Question {
    wanted: Wanted,
    not_before: Instant,
    tries: u32,
}

/// Asks what is wanted, and the venue's clock in between, until nobody wants anything any more. Candles of `frame` go first:
/// those of the feed wait for them. Longer ones are history that nobody waits for; they are never given up.
pub async fn serve(
    mut client: RestClient,
    frame: Timeframe,
    mut wanted: UnboundedReceiver<Wanted>,
    answers: UnboundedSender<Answer>,
) {
    let mut questions: VecDeque<Question> = VecDeque::new();
    let mut clock_at = Instant::now();
    loop {
        let due = questions.iter().map(|question| question.not_before).min();
        let next = due.map_or(clock_at, |due| due.min(clock_at));
        tokio::select! {
            more = wanted.recv() => {
                let Some(wanted) = more else { return };
                // A newer question about a symbol takes the place of the one before.
                let same = |other: &Wanted| other.symbol == wanted.symbol && other.frame == wanted.frame;
                questions.retain(|question| !same(&question.wanted));
                questions.push_back(Question { wanted, not_before: Instant::now(), tries: 0 });
                continue;
            }
            () = sleep_until(next) => {}
        }
        let now = Instant::now();
        let is_ready = |question: &Question| question.not_before <= now;
        let first = questions.iter().position(|question| is_ready(question) && question.wanted.frame == frame);
        let ready = first.or_else(|| questions.iter().position(is_ready));
        let answer = match ready.and_then(|index| questions.remove(index)) {
            Some(question) => match ask(&mut client, frame, question).await {
                Ok(answer) => answer,
                Err((question, error)) => {
                    questions.push_back(question);
                    Answer::Later(error)
                }
            },
            None => {
                clock_at = now + CLOCK_EVERY;
                match client.offset_ms().await {
                    Ok(offset) => Answer::Offset(offset),
                    Err(error) => Answer::Later(error),
                }
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn wait_after(tries: u32) -> Duration {
    FIRST_WAIT * (1 << tries.min(DOUBLED_MAX))
}

async fn ask(
    client: &mut RestClient,
    frame: Timeframe,
    mut question: Question,
) -> Result<Answer, (Question, FetchError)> {
    let wanted = question.wanted;
    // The venue gives rows after `since`; the first missing one is wanted itself.
    let since = wanted.from.map(|from| from.plus_ms(-wanted.frame.ms()));
    let is_patient = wanted.frame != frame;
    match client.candles(wanted.symbol, wanted.frame, since).await {
        Ok(candles) => Ok(Answer::Candles(wanted, candles)),
        Err(error) if !error.may_pass() || (question.tries + 1 >= TRIES && !is_patient) => {
            Ok(Answer::GivenUp(wanted, error))
        }
        Err(error) => {
            question.not_before = Instant::now() + wait_after(question.tries);
            question.tries = question.tries.saturating_add(1);
            Err((question, error))
        }
    }
}
