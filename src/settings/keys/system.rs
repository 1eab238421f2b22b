//! Rows of the keys that decide about running: scheduler, tasks, degradation, clock, bus, store, API, log.

use super::{Form, Key, Kind, flag, ge, int, key, num, one_of, text, to};

/// Rows in the order of the document.
pub(super) const KEYS: &[Key] = &[
    int("scheduler.tick_ms", "ms", to(100.0, 5000.0), "longest time between two looks at the schedule"),
    int("scheduler.max_concurrent_runs", "runs", to(1.0, 10000.0), "global limit (B6)"),
    int("scheduler.reserved_safety_slots", "runs", to(1.0, 8.0), "on top of the limit, for class 0 only (B6)"),
    int("scheduler.max_per_provider", "runs", to(1.0, 1000.0), "runs at once that ask the same provider first (B6)"),
    int("scheduler.ageing_seconds", "s", to(5.0, 600.0), "a waiting run rises one class per this time (B6)"),
    int("scheduler.cancel_grace_seconds", "s", to(0.0, 60.0), "between cancel and timeout (B7)"),
    int("scheduler.starvation_factor", "× interval", to(2.0, 100.0), "no success for so long raises task_starved"),
    int("scheduler.overlap_alert_after", "skips", to(1.0, 100.0), "overlaps in a row that alert (B2)"),
    int("scheduler.spread_ms", "ms", to(0.0, 10000.0), "between the symbols of one task (B1)"),
    num("scheduler.freshness_interval_factor", "× interval", to(1.0, 10.0), "part of the default max age (B5)"),
    int("scheduler.retry.max_attempts", "attempts", to(1.0, 10.0), "runs of one slot (B4)"),
    int("scheduler.retry.base_ms", "ms", to(1.0, 60000.0), "first retry delay (B4)").note("≤ cap_seconds"),
    int("scheduler.retry.cap_seconds", "s", to(1.0, 3600.0), "longest retry delay (B4)"),
    int("scheduler.wait.max_seconds", "s", to(0.0, 3600.0), "longest wait for a dependency (B5)"),
    num("scheduler.wait.interval_ratio", "ratio", to(0.0, 1.0), "the same as a part of the interval (B5)"),
    flag("tasks.<task>.enabled", "whether the task runs").note("sentiment_analysis needs agents.sentiment_analysis"),
    key(
        "tasks.<task>.symbols",
        "–",
        Kind::List(&Kind::Text(Form::TaskSymbol), 0, 10000),
        "symbols of the task; empty = all",
    )
    .note("traded symbols; portfolio_rebalance: PORTFOLIO"),
    int("tasks.<task>.interval_seconds", "s", to(5.0, 604_800.0), "slot length (B1)"),
    int("tasks.<task>.phase_seconds", "s", to(0.0, 604_800.0), "slot phase (B1)").note("≤ interval_seconds"),
    int("tasks.<task>.timeout_seconds", "s", to(1.0, 604_800.0), "run deadline (B7)").note("< interval_seconds"),
    int("tasks.<task>.snapshot_timeout_seconds", "s", to(0.0, 604_800.0), "snapshot read deadline (B7)")
        .note("1..timeout_seconds/2; 0 = no snapshot, sentiment_analysis only"),
    int("tasks.<task>.max_parallel", "runs", to(1.0, 10000.0), "symbols at once (B6)"),
    int("tasks.<task>.catch_up_seconds", "s", to(0.0, 604_800.0), "a missed slot younger than this is made up (B3)")
        .note("≤ interval_seconds"),
    int("tasks.<task>.start_deadline_seconds", "s", to(1.0, 604_800.0), "a queued run older than this is dropped (B6)")
        .note("≤ interval_seconds"),
    text("tasks.<task>.depends_on[].task", "–", Form::Task, "task whose output is needed (B5)")
        .note("once, not itself, no cycle, enabled when required"),
    int(
        "tasks.<task>.depends_on[].max_age_seconds",
        "s",
        to(0.0, 604_800.0),
        "0 = factor × its interval + its timeout (B5)",
    )
    .note("0 or ≥ the dependency's interval_seconds"),
    flag("tasks.<task>.depends_on[].require_new", "an output is used once only (B5)")
        .note("only when the dependency's interval is not longer"),
    flag("tasks.<task>.depends_on[].required", "whether the task needs it (B5)"),
    int(
        "tasks.<task>.max_skew_seconds",
        "s",
        to(0.0, 604_800.0),
        "age difference of two inputs; 0 = 2 × larger interval (B5)",
    ),
    one_of("tasks.<task>.on_stale", &["skip", "run_stale", "fail"], "when a dependency stays stale (B5)"),
    one_of("tasks.<task>.on_crash", &["rerun", "skip", "alert"], "what happens to an interrupted run (C8)"),
    int("legs.max_lateness_seconds", "s", to(0.0, 86400.0), "late legs run up to here, or 10 % of the spacing (B3)"),
    num("legs.min_spacing_ratio", "ratio", to(0.0, 1.0), "of the spacing kept between legs (B3)"),
    one_of("legs.late_policy", &["respread", "skip", "ask_operator"], "what happens to a later leg (B3)"),
    key("degradation.escalate_rates", "ratio", Kind::List(&Kind::Num(to(0.0, 1.0)), 3, 3), "failure rate per level")
        .note("ascending"),
    key(
        "degradation.escalate_consecutive",
        "failures",
        Kind::List(&Kind::Int(ge(1.0)), 3, 3),
        "failures in a row per level",
    )
    .note("ascending"),
    key("degradation.recover_rates", "ratio", Kind::List(&Kind::Num(to(0.0, 1.0)), 3, 3), "failure rate to step down")
        .note("ascending, each < its escalate rate"),
    int("degradation.escalate_window", "outcomes", to(1.0, 10000.0), "window upward"),
    int("degradation.recover_window", "outcomes", to(1.0, 10000.0), "window downward"),
    int("degradation.min_samples", "outcomes", to(1.0, 10000.0), "fewer outcomes have no rate")
        .note("≤ escalate_window"),
    int("degradation.sample_max_age_minutes", "min", to(1.0, 1440.0), "older outcomes leave the window"),
    int("degradation.recover_recent", "successes", to(1.0, 10000.0), "last outcomes that must be successes")
        .note("≤ recover_window"),
    int("degradation.recover_in_a_row", "successes", to(1.0, 10000.0), "successes that step down by themselves"),
    int("degradation.dwell_seconds", "s", ge(1.0), "shortest time in a level").note("≤ dwell_max_seconds"),
    int("degradation.dwell_max_seconds", "s", ge(1.0), "limit of a lengthened dwell"),
    int("degradation.relapse_seconds", "s", ge(1.0), "a rise within it lengthens the dwell"),
    int("degradation.calm_seconds", "s", ge(1.0), "calm that shortens the dwell again"),
    int("degradation.probe_seconds", "s", to(5.0, 600.0), "between probes of the models while they are degraded"),
    int("degradation.incident_merge_ms", "ms", to(0.0, 60000.0), "failures within it are one incident"),
    num("degradation.reduced_size_factor", "×", to(0.0, 1.0), "size of entries at REDUCED"),
    flag("degradation.auto_clear_pause", "the pause reason `degradation` ends by itself"),
    one_of("degradation.max_level.llm", LEVELS, "highest level of the capability"),
    one_of("degradation.max_level.sentiment", LEVELS, "highest level of the capability"),
    one_of("degradation.max_level.market_data", LEVELS, "highest level of the capability"),
    one_of("degradation.max_level.venue", LEVELS, "highest level of the capability"),
    flag("coordinator.analysis_while_halted", "opinion agents run while HALTED"),
    int("coordinator.shutdown_seconds", "s", to(5.0, 35.0), "limit of a clean stop (B12)"),
    int("quarantine.consecutive", "failures", to(1.0, 20.0), "failed slots in a row (B9)"),
    int("quarantine.failures_of_20", "failures", to(1.0, 20.0), "failed of the last 20 (B9)"),
    int("quarantine.base_minutes", "min", to(1.0, 10080.0), "first time out (B9)").note("≤ max_minutes"),
    int("quarantine.max_minutes", "min", to(1.0, 10080.0), "longest time out (B9)"),
    int("quarantine.sticky_after", "per 24 h", to(1.0, 100.0), "quarantines until the operator must release (B9)"),
    int("quarantine.poison_crashes", "crashes", to(1.0, 10.0), "crashes of one slot that quarantine it (C8)"),
    int("clock.jump_seconds", "s", to(1.0, 3600.0), "wall against monotonic time (B10)").note("≤ large_jump_minutes"),
    int("clock.large_jump_minutes", "min", to(1.0, 1440.0), "a larger jump pauses (B10)"),
    num("clock.backward_rate", "×", to(0.1, 1.0), "speed of time after a backward jump (B10)"),
    int("bus.history_per_topic", "messages", to(10.0, 100_000.0), "ring per topic"),
    int("bus.subscriber_queue", "messages", to(10.0, 100_000.0), "queue per subscription"),
    int("bus.cleanup_seconds", "s", to(1.0, 3600.0), "between purges of expired messages"),
    int("bus.ttl_seconds.market_data", "s", ge(1.0), "life of a message"),
    int("bus.ttl_seconds.ta_signals", "s", ge(1.0), "life of a message").note("≥ every max age of technical_analysis"),
    int("bus.ttl_seconds.regime_updates", "s", ge(1.0), "life of a message")
        .note("≥ every max age of regime_detection"),
    int("bus.ttl_seconds.sentiment_updates", "s", ge(1.0), "life of a message")
        .note("≥ every max age of sentiment_analysis"),
    int("bus.ttl_seconds.trading_signals", "s", ge(1.0), "life of a message").note("≥ decision.max_age_seconds"),
    int("bus.ttl_seconds.risk_alerts", "s", ge(1.0), "life of a message"),
    int("bus.ttl_seconds.execution_events", "s", ge(1.0), "life of a message"),
    int("bus.ttl_seconds.portfolio_updates", "s", ge(1.0), "life of a message"),
    int("bus.ttl_seconds.system_events", "s", ge(1.0), "life of a message"),
    int("bus.ttl_seconds.coordinator_commands", "s", ge(1.0), "life of a message"),
    int("store.segment_mib", "MiB", to(1.0, 1024.0), "size of a journal segment"),
    int("store.aux_flush_ms", "ms", to(100.0, 10000.0), "flush of data that is not in the journal"),
    int("store.cache_mib", "MiB", to(8.0, 4096.0), "cache"),
    int("store.group.max_events", "events", to(1.0, 10000.0), "events of one group commit"),
    int("store.checkpoint.events", "events", ge(1.0), "events between checkpoints"),
    int("store.checkpoint.hours", "h", ge(1.0), "time between checkpoints"),
    int("store.checkpoint.keep", "–", to(1.0, 1000.0), "checkpoints kept"),
    int("store.free_space.alert_mib", "MiB", ge(1.0), "less free space alerts"),
    int("store.free_space.pause_mib", "MiB", ge(1.0), "less free space pauses").note("≤ alert_mib"),
    int("supervisor.max_restarts", "restarts", to(1.0, 1000.0), "within the window; more gives up"),
    int("supervisor.window_seconds", "s", to(1.0, 86400.0), "restart window"),
    int("supervisor.backoff_ms", "ms", to(1.0, 60000.0), "first restart delay").note("≤ backoff_max_ms"),
    int("supervisor.backoff_max_ms", "ms", to(1.0, 600_000.0), "longest restart delay"),
    int(
        "supervisor.crash_loop.starts",
        "starts",
        to(0.0, 100.0),
        "so many starts after a crash begin PAUSED; 0 = never",
    ),
    int("supervisor.crash_loop.minutes", "min", to(1.0, 1440.0), "within so much real time"),
    flag("api.enabled", "operator API and dashboard"),
    text("api.bind", "–", Form::Address, "where the API listens; `--listen` replaces it")
        .note("other addresses need TLS, which this release does not have"),
    text("api.token_file", "path", Form::Any, "file of the operator token; empty = DATA_DIR/token").note("mode 0600"),
    key(
        "api.allowed_hosts",
        "–",
        Kind::List(&Kind::Text(Form::Filled), 1, 64),
        "values of the Host header that are answered",
    )
    .note("follows api.bind unless set"),
    text(
        "notify.dead_man_url_file",
        "path",
        Form::Any,
        "file with the address called while all is alive; empty = none",
    )
    .note("mode 0600; https or http"),
    int("notify.dead_man_seconds", "s", to(10.0, 3600.0), "between two calls of it"),
    text(
        "notify.webhook_url_file",
        "path",
        Form::Any,
        "file with the address notifications are posted to; empty = none",
    )
    .note("mode 0600; https or http"),
    one_of("notify.min_level", &["info", "warning", "error"], "the least that is posted"),
    one_of("log.level", &["error", "warn", "info", "debug", "trace"], "how much is logged"),
    one_of("log.format", &["text", "json"], "how log lines look"),
    text("log.dir", "path", Form::Any, "folder of log files; empty = standard error only"),
    int("log.keep_days", "days", to(1.0, 3650.0), "log files kept"),
];

/// Names of degradation levels.
const LEVELS: &[&str] = &["NORMAL", "REDUCED", "LIMITED", "EMERGENCY"];
