# Short names for scripts/, which do all the work and say what they need.
.PHONY: help test demo check bench soak

help: ## Show this.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

test: ## All tests; installs what is missing. ARGS go to pytest: make test ARGS='-k affinity'
	@scripts/test $(ARGS)

demo: ## A blog behind a Service, in network namespaces of its own. Needs root.
	@scripts/demo

check: ## Style, format, types, floors; the tests run this too.
	@scripts/check

bench: ## What it costs at 1,000 and 10,000 Services. Needs root.
	@scripts/bench $(ARGS)

soak: ## A node in all that can go wrong at once, for a quarter of an hour. Needs root.
	@scripts/soak $(ARGS)
