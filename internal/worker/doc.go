// Package worker runs the user's code in its own container: a server (Serve)
// that lives in the user's image, a client for the sidecar that holds the
// credentials, and the protocol between them over a Unix socket.
//
// The sidecar never opens a path that user code can change. It asks the worker,
// which lives on the same side as the files, for listings and tar streams; what
// comes back is bounded and checked by the client, but is the user's content.
// The worker is never given anything that its commands may not have.
//
// # Environment of commands
//
// Commands inherit what the image declares (PATH, JAVA_HOME, GOPATH, NODE_PATH
// …): the container's environment holds no secret by construction. Left out is
// what is no part of the image: names that begin with KUBERNETES_, APHEX_,
// ARGO_ or AWS_, and the links to Services. Set in any case are HOME, TMPDIR,
// CI=true, GIT_TERMINAL_PROMPT=0, safe.directory of git (by GIT_CONFIG_COUNT)
// and AWS_EC2_METADATA_DISABLED=true; PATH and LANG where the image has none.
// Command.Env comes on top. APHEX_COMMAND_ID tags a command's processes.
//
// # Scripts
//
// A script is run by `bash -eo pipefail`. What carries over to the next are the
// working directory, exported variables and exported functions; other variables,
// options and traps do not. Ways to end a script that tell nothing (exec of
// another program, a signal) leave the beginning's values.
//
// # End of commands
//
// No process outlives the command that started it. Each command is a session of
// its own; what leaves the session is found by its ancestors, by the tag in its
// environment and, in a dedicated worker, by being adopted. That last one also
// catches daemons with an empty environment; only if another command was
// running when such a daemon started, it lives until that one ends too. Programs
// of another user (sudo) cannot be ended; Exit.Warning names them.
//
// internal/workspace and tasks/* use the client; cmd/aphex runs the server.
package worker
