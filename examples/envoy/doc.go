// Command envoy shows the whole path with real processes: a stellmapd, three
// upstream HTTP servers and an Envoy that is told everything over ADS. It
// registers, sends requests, adds, kills, deregisters, kills stellmapd itself,
// and measures each step.
//
//	go run ./examples/envoy
//
//	main.go      arguments, signals, exit code
//	scene.go     what is started, on which ports, and how it ends
//	story.go     the steps, in order
//	registrar.go registers over HTTP and keeps leases alive
//	load.go      requests through Envoy: who answered, what failed, when
//	call.go      one HTTP call
//	upstream.go  the server behind Envoy; this program again, as a child
//	report.go    what is printed, and demo.json
package main
