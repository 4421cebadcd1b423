package worker

import (
	"net"

	"golang.org/x/sys/unix"
)

// guard keeps commands of a dedicated worker from using it themselves: one that
// asks for another command could have it outlive its own.
type guard struct {
	*net.UnixListener
	server *server
}

// Accept returns the next connection that is none of a command's. A sidecar in
// another PID namespace has process id 0 here. Source: unix(7), SO_PEERCRED:
// the credentials are those of who connected, whoever uses the connection.
func (g *guard) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if !g.server.cfg.Dedicated {
			return conn, nil
		}
		pid, err := peer(conn)
		if err == nil && (pid == 0 || !g.server.family.includes(pid)) {
			return conn, nil
		}
		g.server.log.Warn("refused a connection from a command", "pid", pid, "err", err)
		_ = conn.Close()
	}
}

// peer returns the process id of who connected.
func peer(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}
