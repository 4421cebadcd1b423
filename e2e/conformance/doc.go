// Package conformance runs Argo's own agent against the plugin, without a
// cluster: its tests start the real AgentExecutor and plugin client of the
// pinned Argo (hack/argo/agent) as processes, the real sidecar with scripted
// stages, journal and nudges in the test's own, and between them a small API
// server. The workflow controller is played by the test, as far as the
// documented behaviour of Argo goes.
//
// Two kinds of tests: TestAgent_… let the agent meet scripted answers and so
// pin down what Argo does, which is what the plugin's rules rest on;
// TestPlugin_… let it meet the plugin. Every answer that the plugin gives on
// the way is held against the rules of the wire, see tap.
//
// docs/evidence/conformance.md says which test shows what.
package conformance
