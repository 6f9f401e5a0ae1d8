// Command envoy shows the whole path with real processes: two regions, each with
// a stellmapd, upstream HTTP servers and an Envoy that is told everything over ADS.
// It registers, sends requests, adds, kills, deregisters, kills stellmapd itself,
// kills all that serve in one region, cuts the regions off from each other, and
// measures each step.
//
//	go run ./examples/envoy
//
//	main.go      arguments, signals, exit code
//	scene.go     what is started, on which ports, and how it ends
//	site.go      what belongs to a region
//	story.go     the steps, in order; those of one region
//	regions.go   the steps of two
//	registrar.go registers over HTTP and keeps leases alive
//	load.go      requests through Envoy: who answered, what failed, when
//	call.go      one HTTP call
//	upstream.go  the server behind Envoy; this program again, as a child
//	report.go    what is printed, and demo.json
package main
