# `make` lists the targets. What they leave behind is in bin/ and .cache/.

# The seconds that each suite may take, with cold build caches on two cores.
# A suite that takes longer has failed; see scripts/within.
SETUP_SECONDS = 300
BUILD_SECONDS = 240
LINT_SECONDS  = 300
UNIT_SECONDS  = 300
RACE_SECONDS  = 600
ENVOY_SECONDS = 120
GRPC_SECONDS  = 180
E2E_SECONDS   = 450
BENCH_SECONDS = 900
CRASH_SECONDS = 1800
MUTANTS_SECONDS = 900
SIM_MUTANTS_SECONDS = 3600
SIM_SECONDS   = 600
REGIONS_SECONDS = 900
CHAOS_SECONDS = 1500
WATCH_SECONDS = 900
DRAIN_SECONDS = 300
LEASES_SECONDS = 600
COPIES_SECONDS = 600
OUTAGE_SECONDS = 300
ENVOYS_SECONDS = 1500
FAILOVER_SECONDS = 1200
FUZZ_TOTAL_SECONDS = 1500
ATTACKS_SECONDS = 1200
PROBES_SECONDS = 600
DIST_SECONDS   = 2400
CONTRACT_SECONDS = 600
# What each fuzz target has.
FUZZ_SECONDS  = 20

# Where data races would hide: whatever runs several goroutines.
RACE_PACKAGES = ./storage/... ./consensus/... ./registry/... ./xds/... ./federation/... ./access/... ./client/... ./cmd/...
# Everything but the tests with real processes, which e2e runs.
UNIT_PACKAGES = $$(go list ./... | grep -v /internal/e2e)

within = scripts/within

.PHONY: help build demo test setup lint unit race e2e bench bench-xds bench-regions scale watchers leases crash chaos watch-properties drain outage envoys failover sim mutants probes contract attacks fuzz dist generate clean
.NOTPARALLEL:

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 10

build: ## build bin/stellmapd and bin/stellmapctl
	@CGO_ENABLED=0 $(within) $(BUILD_SECONDS) build go build -trimpath -o bin/ ./cmd/...

demo: ## the whole path with a real Envoy; ends with PASS (KEEP=1 leaves it running)
	@go run ./examples/envoy

# The last suite's own lines end the output.
test: export WITHIN_CLOSING = e2e
test: setup lint unit race e2e ## everything that CI runs, set-up included

setup: ## get what the tests need; says what it installs
	@$(within) $(SETUP_SECONDS) setup scripts/setup

lint: ## gofmt, go vet, staticcheck
	@$(within) $(LINT_SECONDS) lint scripts/lint

unit: ## tests without real processes, house rules included
	@$(within) $(UNIT_SECONDS) unit go test -count=1 -timeout $(UNIT_SECONDS)s $(UNIT_PACKAGES)

race: ## the same under the race detector, where goroutines meet
	@CGO_ENABLED=1 $(within) $(RACE_SECONDS) race go test -race -count=1 -timeout $(RACE_SECONDS)s $(RACE_PACKAGES)

# With CI set, a test that cannot find what it needs fails; setup has got it all.
e2e: setup ## tests with real processes: Envoy, gRPC clients, clusters, kill -9, strace
	@$(within) $(ENVOY_SECONDS) envoy go test -count=1 -timeout $(ENVOY_SECONDS)s -run Envoy ./xds -envoy "$$(scripts/envoy)"
	@$(within) $(GRPC_SECONDS) grpc go test -count=1 -parallel 4 -timeout $(GRPC_SECONDS)s -run RealGRPCClients ./xds -grpc-clients
	@CI=true ENVOY_BIN="$$(scripts/envoy)" $(within) $(E2E_SECONDS) e2e go test -count=1 -parallel 4 -timeout $(E2E_SECONDS)s ./cmd/stellmapctl ./internal/e2e/...

bench: ## measure; figures and hardware belong in docs/performance.md
	@$(within) $(BENCH_SECONDS) bench go test -run '^$$' -bench Propagation -benchtime 1000x -count=1 -timeout $(BENCH_SECONDS)s ./bench/...

bench-xds: ## measure what proxies cost and wait for, beside go-control-plane's caches, and print a table; takes some minutes
	@$(within) $(BENCH_SECONDS) bench-xds go test -run '^$$' -bench 'XDS$$' -benchtime 1x -count=1 -timeout $(BENCH_SECONDS)s ./bench/

bench-regions: ## two regions copy a third with 100,000 instances: what renewals, changes and full syncs cost each; takes some minutes
	@CI=true $(within) $(COPIES_SECONDS) bench-regions go test -count=1 -timeout $(COPIES_SECONDS)s -v ./internal/e2e -run 'TestWhatACopyCosts' -copied 100000

scale: ## load a million instances and measure; takes some minutes
	@$(within) $(BENCH_SECONDS) scale go test -run '^$$' -bench Million -benchtime 1x -count=1 -timeout $(BENCH_SECONDS)s ./bench/

watchers: ## ten thousand watchers, a thousand of them stuck: what they cost those who write; takes some minutes
	@$(within) $(BENCH_SECONDS) watchers go test -run '^$$' -bench 'Watchers$$' -benchtime 1x -count=1 -timeout $(BENCH_SECONDS)s ./bench/

leases: ## hold 100,000 leases of 10 s on three members, kill the leader, stop some holders, and measure
	@CI=true $(within) $(LEASES_SECONDS) leases go test -count=1 -timeout $(LEASES_SECONDS)s -v ./internal/e2e -run 'TestLeasesUnderLoad' -leases 100000

crash: ## crash a member's storage after every operation on the disk, fail its syncs, damage its files, fill it
	@$(within) $(CRASH_SECONDS) crash go test -count=1 -timeout $(CRASH_SECONDS)s -v ./storage/crashtest -run 'Crash|FailedSync|DamagedLog' -full
	@$(within) $(CRASH_SECONDS) damage go test -count=1 -timeout $(CRASH_SECONDS)s -v ./storage -run 'TestEveryEndOfTheLastSegmentIsATear|TestNoFlippedBitGoesUnnoticed|TestEachDamagedByte' -full
	@CI=true $(within) $(CRASH_SECONDS) full-disk go test -count=1 -timeout $(CRASH_SECONDS)s -v ./internal/e2e -run 'FullDisk|DiskIsFull' -fills 50

chaos: ## kill, stop and cut off members of real clusters under load, and check what clients saw; needs root
	@CI=true $(within) $(CHAOS_SECONDS) chaos go test -count=1 -timeout $(CHAOS_SECONDS)s -v ./internal/e2e -run 'TestChaos$$' -kills 100 -cuts 50 -ops 200000
	@CI=true $(within) $(CHAOS_SECONDS) away go test -count=1 -timeout $(CHAOS_SECONDS)s -v ./internal/e2e -run 'TestAFollowerThatWasAway' -away 200000

watch-properties: ## watch by SSE, long poll and gRPC, and go on elsewhere 10,000 times, while members are killed and sent snapshots
	@CI=true $(within) $(WATCH_SECONDS) watch-properties go test -count=1 -timeout $(WATCH_SECONDS)s -v ./internal/e2e -run 'TestTheNinePromises' -reconnects 10000

drain: setup ## drain backends of a real Envoy under load and kill them: no request may fail
	@CI=true ENVOY_BIN="$$(scripts/envoy)" $(within) $(DRAIN_SECONDS) drain go test -count=1 -timeout $(DRAIN_SECONDS)s -v ./internal/e2e -run 'TestADrainedBackend' -rounds 20

outage: ## all servers of a Go client are down for a minute, and it serves on
	@CI=true $(within) $(OUTAGE_SECONDS) outage go test -count=1 -timeout $(OUTAGE_SECONDS)s -v ./internal/e2e -run 'TestAClientServes' -down 60s

envoys: setup ## thirty Envoys have what the registry has after 500 changes, and serve on through five minutes without it
	@CI=true ENVOY_BIN="$$(scripts/envoy)" $(within) $(ENVOYS_SECONDS) envoys go test -count=1 -timeout $(ENVOYS_SECONDS)s -v ./internal/e2e -run 'TestThirtyEnvoys$$' -envoys 30 -envoy-changes 500 -down 5m

failover: setup ## kill, freeze and cut off all instances of a region twenty times, under load: Envoys go on with another region's; needs root
	@CI=true ENVOY_BIN="$$(scripts/envoy)" $(within) $(FAILOVER_SECONDS) failover go test -count=1 -timeout $(FAILOVER_SECONDS)s -v ./internal/e2e -run 'TestTrafficFallsBack' -failovers 20

sim: ## simulate clusters of members, with all that can go wrong: 1,000 fixed schedules and 1,000 new ones
	@$(within) $(SIM_SECONDS) sim go test -count=1 -timeout $(SIM_SECONDS)s -v ./consensus/simulate -run 'TestSchedules|TestASeed' -schedules 1000 -random 1000 -workers 2 -twice 20

regions: ## simulate regions that follow each other, with all that can go wrong: 5,000 schedules
	@$(within) $(REGIONS_SECONDS) regions go test -count=1 -timeout $(REGIONS_SECONDS)s -v ./federation -run TestRegionSchedules -schedules 5000 -workers 2

mutants: ## plant one bug after the other; the harness of crashes, the simulator, and that of processes, have to find theirs
	@$(within) $(MUTANTS_SECONDS) mutants go test -v -tags mutants -count=1 -timeout $(MUTANTS_SECONDS)s -run 'TestMutants$$' ./storage/crashtest
	@$(within) $(SIM_MUTANTS_SECONDS) sim-mutants go test -v -tags mutants -count=1 -timeout $(SIM_MUTANTS_SECONDS)s -run 'TestMutants$$' ./consensus/simulate
	@$(within) $(MUTANTS_SECONDS) region-mutants go test -v -tags mutants -count=1 -timeout $(MUTANTS_SECONDS)s -run 'TestMutants$$' ./federation
	@CI=true $(within) $(MUTANTS_SECONDS) bugs go test -v -count=1 -timeout $(MUTANTS_SECONDS)s -run 'TestChaosFindsPlantedBugs$$|TestTheNinePromisesFindPlantedBugs$$' ./internal/e2e -bugs

probes: ## check a real Redis and a real MariaDB, which it installs from Debian's packages
	@$(within) $(PROBES_SECONDS) servers scripts/servers
	@$(within) $(PROBES_SECONDS) probes go test -v -count=1 -timeout $(PROBES_SECONDS)s ./registry/probe -run TestReal -servers

contract: setup ## ask a member what its description of the API makes up, right and wrong, and hold the answers against it
	@scripts/schemathesis >/dev/null
	@CI=true $(within) $(CONTRACT_SECONDS) contract go test -v -count=1 -timeout $(CONTRACT_SECONDS)s ./internal/e2e -run 'TestTheContract$$' -schemathesis "$$(scripts/schemathesis)"

attacks: ## attack a member's sockets, with TLS and without: 10,000 idle connections, slow and huge requests, floods over HTTP/2; it serves on, in bounded memory
	@CI=true $(within) $(ATTACKS_SECONDS) attacks go test -count=1 -timeout $(ATTACKS_SECONDS)s -v ./internal/e2e -run 'TestRawAttacks$$' -idle 10000 -attackers 64 -attack-for 5s

fuzz: ## run each fuzz target for FUZZ_SECONDS
	@$(within) $(FUZZ_TOTAL_SECONDS) fuzz scripts/fuzz $(FUZZ_SECONDS)

dist: ## build what a release has into bin/dist: static binaries, each built twice and the same, bills of materials, checksums (VERSION=1.2.3)
	@$(within) $(DIST_SECONDS) dist go run ./internal/dist bin/dist $(VERSION)

generate: ## write the code of api/proto and the description of the API anew
	@scripts/generate
	@go test -count=1 ./registry/httpapi -run '^TestTheReferenceIsCurrent$$' -args -rewrite

clean: ## remove bin/ and .cache/
	rm -rf bin .cache
