// Package server is the HTTP edge of the executor plugin: it answers the
// agent's calls of POST /api/v1/template.execute on loopback.
//
// What the agent does with an answer decides its form. Every path answers 200
// with a JSON body, except 403 for a wrong token and 503 while the plugin
// starts: any other status fails the stage, and 404 makes the agent ignore the
// plugin from then on. What is not for aphex, cannot be read or leads nowhere
// is answered {} ("not mine").
//
// The middleware is nested in this order, outermost first: logging, rendering,
// recovery, authentication. Handlers and the inner middleware only leave an
// answer behind; rendering is the one place that writes it.
//
// gin stays in this package. Imported by plugin/sidecar.
package server
