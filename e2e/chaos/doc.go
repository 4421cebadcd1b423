// Package chaos runs the sample pipeline over and over, kills a part of it at
// a chosen moment each time, and compares what is left with a run in which
// nothing was killed.
//
// The product has no hooks for it. Every effect passes one of three places
// outside of it: a proxy before the emulated AWS, a proxy before the API
// server, and an endpoint that the pipeline's commands call when they begin
// and end. Each of them can kill before an effect is forwarded, after it took
// effect and before its answer is given, or swallow just the answer.
package chaos
