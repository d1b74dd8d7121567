# The words that people and CI share. `make` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TOOLS := target/tools
PROMETHEUS := deploy/prometheus
SECONDS := 60
SEED :=

.PHONY: help demo test lint fuzz bench docs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## gateway, simulated Bonterra Auth and an echo API on loopback, with commands to paste
	cargo run --release --locked -- demo

# The printed commands of the demo are run as they are, so curl is needed too.
# What tests talk to: proxies and servers of other makers, none of them started by its package.
SERVERS := $(addprefix $(TOOLS)/,apache2 nginx node python3 redis-server)
# What talks to the gateway: a browser with its driver, and client libraries.
CLIENTS := $(addprefix $(TOOLS)/,chromium chromedriver clients/node_modules)

test: $(TOOLS)/promtool $(SERVERS) $(CLIENTS) ## all tests; the last line says how many ran
	@command -v curl >/dev/null || { apt-get -q update; apt-get -q install -y --no-install-recommends curl; }
	$(TOOLS)/promtool test rules $(PROMETHEUS)/alerts_test.yml
	@mkdir -p target; failed=0; \
	CARGO_TERM_COLOR=never cargo test --locked --no-fail-fast 2>&1 | tee target/test.log || failed=1; \
	awk '/^test result:/ { \
			if (match($$0, /[0-9]+ passed/)) passed += substr($$0, RSTART); \
			if (match($$0, /[0-9]+ failed/)) failed += substr($$0, RSTART) } \
		END { printf "%d passed, %d failed\n", passed, failed }' target/test.log; \
	exit $$failed

lint: $(TOOLS)/cargo-deny $(TOOLS)/promtool ## formatting, clippy, documentation, licences and versions, alert rules
	cargo fmt --check
	cargo fmt --check --manifest-path benches/peers/pingora-gateway/Cargo.toml
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
	$(TOOLS)/cargo-deny --locked check licenses bans sources
	$(TOOLS)/promtool check config $(PROMETHEUS)/prometheus.yml
	$(TOOLS)/promtool check rules $(PROMETHEUS)/alerts.yml

# Clippy sees the fuzzed properties in `make lint`: tests/it mounts them.
fuzz: ## every fuzz target for SECONDS, 60 unless given: make fuzz SECONDS=10; SEED=1 for always the same
	@command -v g++ >/dev/null || { apt-get -q update; apt-get -q install -y --no-install-recommends g++; }
	@SEED=$(SEED) fuzz/run.sh $(SECONDS)

bench: ## criterion, then the gateway side by side with other proxies
	cargo bench --locked --bench '*'
	benches/peers/run.py

docs: ## the API documentation, in target/doc
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

# Tools are used where they are installed; otherwise they come into target/tools and change nothing else on the machine.

# Unoptimised, because it is built faster than the time it could save: a minute on two cores.
$(TOOLS)/cargo-deny:
	@mkdir -p $(TOOLS)
	@if found=$$(command -v cargo-deny); then ln -sf "$$found" $@; else \
		CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --root $(TOOLS) cargo-deny --version 0.20.2; \
		ln -sf bin/cargo-deny $@; fi

# Debian's redis-server would start a service. The same program is in redis-tools under another name, and goes by the
# name that it is called by.
$(TOOLS)/redis-server:
	@mkdir -p $(TOOLS)
	@if found=$$(command -v redis-server); then ln -sf "$$found" $@; else \
		command -v redis-check-rdb >/dev/null || { apt-get -q update; apt-get -q install -y --no-install-recommends redis-tools; }; \
		ln -sf "$$(command -v redis-check-rdb)" $@; fi; \
	$@ --version

# Unpacked rather than installed: Debian's package would start a server.
$(TOOLS)/promtool:
	@mkdir -p $(TOOLS)/prometheus
	@if found=$$(command -v promtool); then ln -sf "$$found" $@; else \
		if [ "$$(id -u)" = 0 ]; then apt-get -q update; fi; \
		cd $(TOOLS)/prometheus; \
		apt-get -q download prometheus || { echo "promtool is missing: install Debian's package prometheus" >&2; exit 1; }; \
		dpkg-deb -x prometheus_*.deb .; \
		ln -sf prometheus/usr/bin/promtool ../promtool; fi

# Upstreams and a client of other makers for the tests. These packages bring no service of the machine ...
$(TOOLS)/apache2 $(TOOLS)/node $(TOOLS)/python3:
	@mkdir -p $(TOOLS)
	@name=$(@F); find_it() { PATH=/usr/sbin:/usr/bin:$$PATH command -v "$$name"; }; \
	case $$name in apache2) package=apache2-bin;; node) package=nodejs;; *) package=$$name;; esac; \
	find_it >/dev/null || { apt-get -q update && apt-get -q install -y --no-install-recommends $$package; } \
		|| { echo "$$name is missing: install Debian's package $$package" >&2; exit 1; }; \
	ln -sf "$$(find_it)" $@

# ... and this one is unpacked, because Debian's package would start one. Its libraries are Apache's too.
$(TOOLS)/nginx: $(TOOLS)/apache2
	@mkdir -p $(TOOLS)/nginx-package
	@if found=$$(PATH=/usr/sbin:/usr/bin:$$PATH command -v nginx); then ln -sf "$$found" $@; else \
		if [ "$$(id -u)" = 0 ]; then apt-get -q update; fi; \
		cd $(TOOLS)/nginx-package; \
		apt-get -q download nginx || { echo "nginx is missing: install Debian's package nginx" >&2; exit 1; }; \
		dpkg-deb -x nginx_*.deb .; \
		ln -sf nginx-package/usr/sbin/nginx ../nginx; fi

# Clients of other makers. Where these cannot be had, the other tests run, and theirs fail and say what is missing.
$(TOOLS)/chromium $(TOOLS)/chromedriver:
	@mkdir -p $(TOOLS)
	@name=$(@F); case $$name in chromedriver) package=chromium-driver;; *) package=$$name;; esac; \
	command -v "$$name" >/dev/null || { apt-get -q update && apt-get -q install -y --no-install-recommends $$package; } || true; \
	if found=$$(command -v "$$name"); then ln -sf "$$found" $@; \
	else echo "$$name is missing, a test will fail: install Debian's package $$package" >&2; fi

# In the versions of the lock, checked against its digests; no script of a package is run.
LOCK := tests/it/foreign/package-lock.json
$(TOOLS)/clients/node_modules: $(LOCK) | $(TOOLS)/node
	@mkdir -p $(@D)
	@command -v npm >/dev/null || { apt-get -q update && apt-get -q install -y --no-install-recommends npm; } || true
	@cp $(LOCK) $(LOCK:-lock.json=.json) $(@D)
	@cd $(@D); if npm ci --ignore-scripts --no-audit --no-fund --cache=cache; then touch node_modules; \
	else rm -rf node_modules; echo "client libraries are missing, a test will fail: npm is needed, and has to reach its registry" >&2; fi
