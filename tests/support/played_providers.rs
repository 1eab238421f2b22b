//! Two providers of models without a wire and in two dialects: one, of OpenAI's, fails half of its calls in every way
//! there is; the other, of Anthropic's, is well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a failed unwrap is a failed test

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use futures_util::future::LocalBoxFuture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use triplegain::{
    llm::{
        actor::http::{Broken, Raw},
        budget,
        question::{FailureKind, Rejected},
        wire::Usage,
    },
    model::Money,
    settings::ModelSettings,
};

use super::support::dec;

fn priced() -> ModelSettings {
    ModelSettings {
        input_usd_per_1k: dec("0.001"),
        output_usd_per_1k: dec("0.002"),
        max_output_tokens: 800,
        temperature: None,
        answer_form: None,
    }
}

/// What the providers know: a bill of their own, kept apart from the program's ledger.
pub struct Providers {
    draws: RefCell<ChaCha8Rng>,
    pub dark: Cell<bool>,
    /// The sick one never says anything.
    pub hangs: Cell<bool>,
    /// USD of the replies that said what they used.
    pub billed: Cell<Money>,
    /// Calls by provider and what became of them.
    pub calls: RefCell<BTreeMap<String, usize>>,
    /// Questions by the name of their form.
    pub asked: RefCell<BTreeMap<String, usize>>,
    /// Calls under way now.
    pub open: Cell<i64>,
}

/// What a question wants, by a field that only its answer has.
fn form_of(body: &Value) -> &'static str {
    let places = ["/response_format/json_schema/schema", "/output_config/format/schema"];
    let schema = places.iter().find_map(|place| body.pointer(place)).unwrap_or_else(|| panic!("no schema: {body}"));
    let forms = [
        ("position_size_pct", "trading_decision"),
        ("trend_strength", "technical_analysis"),
        ("transitions", "regime_detection"),
        ("narratives", "sentiment_analysis"),
        ("execution", "portfolio_rebalance"),
        ("modifications", "conflict_resolution"),
        ("ok", "probe"),
    ];
    let form = forms.into_iter().find(|(field, _)| schema["properties"].get(field).is_some());
    form.unwrap_or_else(|| panic!("nobody should ask for {schema}")).1
}

/// Counts a call as under way until it is answered or dropped.
struct Open(Rc<Providers>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Providers {
    pub fn new(seed: u64) -> Rc<Providers> {
        Rc::new(Providers {
            draws: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            dark: Cell::default(),
            hangs: Cell::default(),
            billed: Cell::default(),
            calls: RefCell::default(),
            asked: RefCell::default(),
            open: Cell::default(),
        })
    }

    fn draw(&self, below: u32) -> u32 {
        self.draws.borrow_mut().random_range(0..below)
    }

    fn count(&self, what: &str) {
        *self.calls.borrow_mut().entry(what.to_owned()).or_default() += 1;
    }

    pub fn counted(&self, what: &str) -> usize {
        self.calls.borrow().get(what).copied().unwrap_or_default()
    }

    /// A reply that says what it used, and the bill for it: a token for one and a half characters, denser than any
    /// estimate, as numbers in JSON are.
    fn bill(&self, sick: bool, text: &str, cut: bool, prompt: &str) -> Vec<u8> {
        let tokens = |text: &str| text.chars().count() as u32 * 2 / 3;
        let (input, output) = (tokens(prompt), tokens(text));
        self.billed.set(self.billed.get() + budget::price(&priced(), Usage { input, output }));
        let reply = match sick {
            true => json!({
                "choices": [{"finish_reason": if cut { "length" } else { "stop" }, "message": {"content": text}}],
                "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output},
            }),
            false => json!({
                "content": [{"type": "text", "text": text}],
                "stop_reason": if cut { "max_tokens" } else { "end_turn" },
                "usage": {"input_tokens": input, "output_tokens": output},
            }),
        };
        reply.to_string().into_bytes()
    }

    /// Any of the choices.
    fn one<'a>(&self, of: &[&'a str]) -> &'a str {
        of[self.draw(of.len() as u32) as usize]
    }

    /// A valid answer to a question.
    fn answer(&self, form: &str, data: &Value) -> String {
        let sure = f64::from(65 + self.draw(30)) / 100.0;
        let reasoning = "as shown";
        match form {
            "trading_decision" => {
                let price: f64 = data["market"]["price"].as_str().unwrap().parse().unwrap();
                match self.one(&["BUY", "BUY", "BUY", "HOLD", "CLOSE_LONG"]) {
                    "BUY" => json!({
                        "action": "BUY", "confidence": sure, "entry": price, "stop": price * 0.98,
                        "target": price * 1.04, "position_size_pct": 10, "reasoning": reasoning,
                    }),
                    other => json!({"action": other, "confidence": sure, "reasoning": reasoning}),
                }
            }
            "technical_analysis" => json!({
                "bias": self.one(&["long", "long", "neutral", "short"]), "trend_strength": 0.6, "momentum_score": 0.2,
                "rsi_signal": "neutral", "macd_signal": "bullish", "support_levels": [], "resistance_levels": [],
                "current_position": "mid_range", "primary_signal": "trend", "confidence": sure, "reasoning": reasoning,
            }),
            "regime_detection" => json!({
                "regime": self.one(&["trending_bull", "trending_bull", "ranging", "trending_bear"]), "confidence": sure,
                "reasoning": reasoning,
            }),
            "sentiment_analysis" => json!({
                "bias": "neutral", "score": f64::from(self.draw(9)) / 10.0 - 0.4, "confidence": sure, "events": [],
                "narratives": [],
            }),
            "portfolio_rebalance" => {
                json!({"execution": self.one(&["dca", "defer", "immediate"]), "confidence": sure, "reasoning": reasoning})
            }
            "conflict_resolution" => {
                json!({"action": self.one(&["proceed", "wait", "abort"]), "confidence": sure, "reasoning": reasoning})
            }
            "probe" => json!({"ok": true}),
            other => panic!("nobody should ask for `{other}`"),
        }
        .to_string()
    }

    /// One call, over a wire that is not there.
    pub fn carry(self: &Rc<Self>, url: &str, body: Option<&Value>) -> LocalBoxFuture<'static, Result<Raw, Broken>> {
        let (own, body, url) = (Rc::clone(self), body.cloned(), url.to_owned());
        let sick = url.starts_with("https://sick");
        Box::pin(async move {
            own.open.set(own.open.get() + 1);
            let _open = Open(Rc::clone(&own));
            let raw = |status, body: Vec<u8>| Raw { status, retry_after_ms: None, body };
            let broken = |unsent, detail: &str| {
                let why = Rejected { kind: FailureKind::Connection, detail: detail.to_owned() };
                Err(Broken { why, unsent })
            };
            let fails = own.dark.get() || sick && (own.hangs.get() || own.draw(2) == 0);
            let Some(body) = body else {
                own.count("probe");
                return if fails { broken(true, "refused") } else { Ok(raw(200, b"{\"data\":[]}".to_vec())) };
            };
            let form = form_of(&body);
            own.count(match (form, sick) {
                ("probe", _) => "paid probe",
                (_, true) => "sick",
                (_, false) => "well",
            });
            *own.asked.borrow_mut().entry(form.to_owned()).or_default() += 1;
            assert!(url.ends_with(if sick { "/chat/completions" } else { "/messages" }), "{url}");
            let said = |place: &str| body.pointer(place).and_then(Value::as_str).unwrap().to_owned();
            let (system, user) = match sick {
                true => (said("/messages/0/content"), said("/messages/1/content")),
                false => (said("/system"), said("/messages/0/content")),
            };
            let (prompt, data) = (system + &user, serde_json::from_str(&user).unwrap());
            if own.dark.get() {
                return broken(true, "refused");
            }
            tokio::time::sleep(Duration::from_millis(u64::from(300 + own.draw(4_000)))).await;
            if !fails {
                let text = own.answer(form, &data);
                return Ok(raw(200, own.bill(sick, &text, false, &prompt)));
            }
            match if own.hangs.get() { 0 } else { own.draw(9) } {
                0 => std::future::pending().await,
                1 => Ok(raw(500, b"oops".to_vec())),
                2 => Ok(raw(503, b"<html>".to_vec())),
                3 => Ok(Raw { retry_after_ms: Some(4_000), ..raw(429, b"{}".to_vec()) }),
                4 => broken(true, "refused"),
                5 => broken(false, "reset by peer"),
                6 => Ok(raw(200, b"\n \n".to_vec())),
                7 => Ok(raw(200, own.bill(sick, "I would not buy here.", false, &prompt))),
                _ => Ok(raw(200, own.bill(sick, "{\"action\":", true, &prompt))),
            }
        })
    }
}
