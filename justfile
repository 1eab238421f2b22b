# Recipes; every one is a plain command you can also type.

# What CI runs.
ci:
    bash .ci/run

# The README's test command.
test:
    cargo test

# All figures of docs/benchmarks.md.
bench:
    cargo bench

# Simulations with every fault, every seed twice; `just simulate 52143 7` is a thousand years and takes days.
simulate seeds="200" days="7" first="1":
    cargo run --release --quiet -- simulate --seed {{first}} --seeds {{seeds}} --days {{days}} --faults all --twice

# Line coverage of the modules with money in them (installs cargo-llvm-cov).
coverage:
    bash .ci/coverage

# docs/configuration.md from the key table.
docs:
    cargo run --release --quiet -- config docs > docs/configuration.md

# Rows of new tests in docs/findings.md and docs/acceptance.md.
findings:
    FINDINGS_WRITE=1 cargo test --test findings

# Every run of the crash-point matrix, over 400; CI runs the first of each cell and a third of the others.
crash-matrix:
    cargo test --features failpoints --test crash_matrix -- --nocapture

# Breaks the sources on purpose and demands that the named test of each patch notices.
mutants:
    bash .ci/mutants

# The long proof that kill -9 loses nothing: 20 000 kills, about an hour on four cores.
torture cycles="20000":
    cargo build --release
    target/release/triplegain torture kill --cycles {{cycles}} --parallel 4

# The real binary on a misbehaving live venue at real speed, ten minutes; the figures of docs/market-data.md.
soak-kraken seconds="600":
    KRAKEN_SOAK_SECONDS={{seconds}} cargo test --test kraken_soak -- --nocapture

# Candles of the live feed that stand still for more than three minutes; five minutes.
freeze-kraken:
    KRAKEN_FREEZE=1 cargo test --test kraken_trouble -- candles_that_stop

# A month of models on every agent with a provider that fails half its calls; the figures of docs/models.md.
soak-models days="30":
    MODEL_SOAK_DAYS={{days}} cargo test --release --test model_soak -- a_month --nocapture
