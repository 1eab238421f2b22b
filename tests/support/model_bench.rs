//! A router of models over a store in memory, and what providers say in their dialects.
#![allow(dead_code, missing_docs, clippy::unwrap_used)] // not every test file uses everything

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use actix::{Actor, Addr, Context, Handler};
use triplegain::{
    llm::{
        actor::{
            AskModel, ModelOutcome, ReadModels,
            http::Http,
            keys::Key,
            router::Router,
            shared::{RouterParts, Shared},
            tape::Tape,
        },
        budget,
        question::{AnswerFormat, Answered, FailureKind, Payer, Prompt, Question, Rejected, Unanswered},
        rations::WorstCases,
    },
    model::{Clock, Money, RunKey, TaskName, Ts},
    runtime::{
        clock::LogicalClock,
        supervisor::{Policy, supervise},
    },
    settings::{ModelSettings, ProviderKind, ProviderSettings, Settings},
    store::{
        OpenInfo, Store, StoreActor, StoreActorConfig,
        view::{CommitLog, StateView},
    },
};

use super::loopback::Play;

pub const KINDS: [ProviderKind; 5] =
    [ProviderKind::OpenAi, ProviderKind::Anthropic, ProviderKind::DeepSeek, ProviderKind::XAi, ProviderKind::Ollama];
pub const SECRET: &str = "sk-test-5ecr3t";
pub const START: Ts = Ts(1_700_000_000_000);

pub fn usd(text: &str) -> Money {
    text.parse().unwrap()
}

pub fn priced() -> ModelSettings {
    ModelSettings {
        input_usd_per_1k: usd("0.001"),
        output_usd_per_1k: usd("0.002"),
        max_output_tokens: 300,
        temperature: Some(0.0),
        answer_form: None,
    }
}

/// Price of the 10 + 5 tokens of [`success`].
pub const COST: &str = "0.00002";

pub fn provider(kind: ProviderKind, url: &str, timeout_seconds: u32) -> ProviderSettings {
    ProviderSettings {
        kind,
        base_url: url.to_owned(),
        key_env: "KEY".to_owned(),
        key_file: String::new(),
        calls_per_minute: 6000,
        burst: 100,
        timeout_seconds,
        max_parallel: 4,
        daily_usd: None,
        models: BTreeMap::from([("m".to_owned(), priced())]),
    }
}

/// A whole answer in a dialect, with a finish of its own choice.
pub fn said(kind: ProviderKind, text: &str, cut: bool) -> String {
    let value = match kind {
        ProviderKind::Anthropic => serde_json::json!({
            "content": [{"type": "text", "text": text}],
            "stop_reason": if cut { "max_tokens" } else { "end_turn" },
            "usage": {"input_tokens": 10, "output_tokens": 5},
        }),
        _ => serde_json::json!({
            "choices": [{"finish_reason": if cut { "length" } else { "stop" }, "message": {"content": text}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }),
    };
    value.to_string()
}

pub fn success(kind: ProviderKind) -> Play {
    Play::ok(&said(kind, "{\"ok\":true}", false))
}

pub fn question(clock: &LogicalClock, deadline_ms: i64) -> Question {
    Question {
        chain: "main".to_owned(),
        key: RunKey { task: TaskName::TechnicalAnalysis, symbol: "BTC/USDT".parse().unwrap() },
        payer: Payer::Opinion,
        prompt: Prompt { template: "t@1".into(), system: "rules".into(), user: "data".into() },
        format: AnswerFormat { name: "vote".into(), schema: serde_json::json!({"type": "object"}) },
        deadline: clock.now().plus_ms(deadline_ms),
        check: Arc::new(|text| {
            let rejected = |kind| Err(Rejected { kind, detail: "not what was asked for".to_owned() });
            match text {
                "{\"ok\":true}" => Ok(()),
                "panic" => panic!("a check that breaks"),
                "{\"ok\":2}" => rejected(FailureKind::OutOfRange),
                _ => rejected(FailureKind::Unparsable),
            }
        }),
    }
}

/// What an attempt that is charged without a count is taken to cost.
pub fn worst() -> Money {
    let question = question(&LogicalClock::start(START, 1), 0);
    budget::price(&priced(), budget::worst_usage(&priced(), &question.prompt, &question.format))
}

#[derive(Default)]
pub struct Ear(Rc<RefCell<Vec<ModelOutcome>>>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<ModelOutcome> for Ear {
    type Result = ();
    fn handle(&mut self, outcome: ModelOutcome, _: &mut Context<Self>) {
        self.0.borrow_mut().push(outcome);
    }
}

/// A router over a store in memory.
pub struct Bench {
    pub router: Addr<Router>,
    pub store: Addr<StoreActor>,
    pub view: StateView,
    pub clock: LogicalClock,
    pub told: Rc<RefCell<Vec<ModelOutcome>>>,
}

pub struct Setup {
    pub settings: Settings,
    pub stored: Vec<(String, Vec<u8>)>,
    pub tape: Tape,
    pub network: bool,
    /// Who stands for the network.
    pub stand: Option<Http>,
    pub keys: BTreeMap<String, Result<Option<Key>, String>>,
}

impl Setup {
    /// Providers `a`, `b`, … asked in this order.
    pub fn new(providers: Vec<ProviderSettings>) -> Setup {
        let mut settings = Settings::defaults();
        let names = ["a", "b", "c"];
        let key = || Ok(Some(Key::new(SECRET).unwrap()));
        let keys = names.iter().map(|name| ((*name).to_owned(), key())).collect();
        let named = names.iter().map(|name| (*name).to_owned()).zip(providers);
        settings.providers = named.collect();
        let chain = settings.providers.keys().map(|name| format!("{name}/m")).collect();
        settings.chains = BTreeMap::from([("main".to_owned(), chain)]);
        Setup { settings, stored: Vec::new(), tape: Tape::Off, network: true, stand: None, keys }
    }

    pub async fn start(self) -> Bench {
        let clock = LogicalClock::start(START, 1);
        let info = OpenInfo {
            seed: 7,
            data_kind: "simulated".into(),
            config_hash: "c".repeat(64),
            version: "test".into(),
            now: START,
            deposits: BTreeMap::from([("USDT".parse().unwrap(), usd("10000"))]),
            stands_still: false,
            store_id: None,
        };
        let (store, _) = Store::memory(&info, None).unwrap();
        let log = CommitLog::default();
        let view = StateView::new(store.state().clone(), log.clone(), Rc::new(|misfit| panic!("{misfit}")));
        let config = StoreActorConfig {
            observers: Vec::new(),
            log,
            max_group_events: 100,
            aux_flush_ms: 0,
            grouping: false,
            on_fatal: Box::new(|fatal| panic!("{fatal}")),
        };
        let store = StoreActor::new(store, config).start();
        let shared = Shared::new(RouterParts {
            worst_cases: WorstCases::default(),
            settings: Rc::new(self.settings),
            config_hash: "c".repeat(64),
            clock: clock.clone(),
            view: view.clone(),
            store: store.clone().recipient(),
            aux: store.clone().recipient(),
            stored: self.stored,
            keys: self.keys,
            tape: self.tape,
            seed: 7,
            http: self.network.then(|| self.stand.unwrap_or_else(|| Http::new().unwrap())),
        });
        let told = Rc::<RefCell<Vec<ModelOutcome>>>::default();
        *shared.outcomes.borrow_mut() = Some(Ear(Rc::clone(&told)).start().recipient());
        let router = supervise("router", Policy::default(), move || Router::new(Rc::clone(&shared)), |_| ());
        Bench { router, store, view, clock, told }
    }
}

impl Bench {
    pub async fn ask(&self, deadline_ms: i64) -> Result<Answered, Unanswered> {
        self.router.send(AskModel(question(&self.clock, deadline_ms))).await.unwrap()
    }

    pub fn spent(&self) -> Money {
        self.view.read().models.total()
    }

    pub async fn breaker(&self, provider: &str) -> String {
        let status = self.router.send(ReadModels).await.unwrap();
        status.into_iter().find(|line| line.provider == provider).unwrap().breaker
    }
}
