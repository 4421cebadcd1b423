package archive

import "golang.org/x/sys/unix"

// nonBlocking keeps open from waiting for the other end of a pipe.
const nonBlocking = unix.O_NONBLOCK
