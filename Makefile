# Each target is one line over cargo or a small script; CONTRIBUTING.md says more.
BIN := $(or $(CARGO_TARGET_DIR),target)/debug

.DEFAULT_GOAL := run
.PHONY: run test lint bench kafka

# Everything on this machine, until Ctrl-C: PostgreSQL, Kafka, both services.
run:
	@cargo build --locked -p command -p query -p dev && exec $(BIN)/order-dev up

# All tests, with a PostgreSQL and a Kafka of their own. ARGS="name" narrows them down.
test:
	@cargo build --locked --workspace && cargo test --locked --workspace --no-run && $(BIN)/order-dev test -- cargo test --locked --workspace $(ARGS)

# Format, clippy, documentation, container files.
lint:
	@.ci/lint

# Our figures beside the machine's limits. ARGS="append --quick" narrows them down.
bench:
	@cargo build --locked -p dev && $(BIN)/order-dev bench $(ARGS)

# Only the broker, on 127.0.0.1:9092.
kafka:
	@cargo build --locked -p dev && exec $(BIN)/order-dev kafka
