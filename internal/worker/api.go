package worker

import (
	"io/fs"
	"time"
)

// The folders below a worker's root, which Serve creates at its start.
const (
	// SourceDir holds the checkout.
	SourceDir = "source"
	// HomeDir is HOME of every command.
	HomeDir = "home"
	// TempDir is TMPDIR of every command.
	TempDir = "tmp"
	// OutDir is scratch space of the stages, such as CDK output.
	OutDir = "out"
)

// TailBytes is how much of a command's last output Exit.Tail keeps. 64 KiB
// holds the stack trace of any common tool and fits into memory many times.
const TailBytes = 64 << 10

// DefaultGrace is the time between SIGTERM and SIGKILL where Command.Grace
// is zero.
const DefaultGrace = 10 * time.Second

// Info says which worker answers.
type Info struct {
	// Version of the binary that the worker runs.
	Version string `json:"version"`
	// BootID is random and new with every start of a worker: a different one
	// means that the container was restarted in between.
	BootID string `json:"bootID"`
	// UID is the user that commands run as.
	UID int `json:"uid"`
	// PID is the worker's own, as it sees itself; 1 without an init.
	PID int `json:"pid"`
	// Root is the absolute path, inside the worker, that paths are relative to.
	Root string `json:"root"`
}

// Command is one command to run in the worker. Exactly one of Script and Argv
// is set.
type Command struct {
	// Script is shell text as the user wrote it, run by `bash -eo pipefail`.
	// Working directory and exported variables at its end come back in Exit.
	Script string
	// Argv is run directly, without a shell. A name without a slash is looked
	// up in PATH of the command's environment.
	Argv []string
	// Dir is where the command starts, relative to the root ("source/app");
	// empty is the root itself. An absolute path is accepted as well, because
	// Exit.Dir is one where a script left the root.
	Dir string
	// Env is added to the default environment (see package documentation),
	// replacing variables of the same name.
	Env map[string]string
	// ExactEnv makes Env the whole environment: nothing is added. It is meant
	// for Exit.Env of an earlier command, so that unset stays unset.
	ExactEnv bool
	// Timeout ends the command when it is used up; zero is no limit.
	Timeout time.Duration
	// TimeoutLabel names the setting Timeout comes from, such as
	// "build.timeout", for the message.
	TimeoutLabel string
	// Grace is the time between SIGTERM and SIGKILL; zero is DefaultGrace.
	Grace time.Duration
	// MaxOutput is how many bytes of output are passed on; zero is no limit.
	// What goes beyond is dropped and counted in Exit.Warning; Exit.Tail is
	// not affected.
	MaxOutput int64
}

// Exit is how a command ended.
type Exit struct {
	// Code is the exit code; 128 + signal number if a signal ended it.
	Code int
	// Signal is the signal's name ("SIGKILL"), empty if there was none.
	Signal string
	// Dir is where a Script was at its end, to be used as Command.Dir of the
	// next one: relative to the root, or absolute outside of it. If it could
	// not be learnt (the script replaced its shell, or was killed), it is
	// where the script began.
	Dir string
	// Env is what a Script had exported at its end, to be used as Command.Env
	// with ExactEnv. If it could not be learnt, it is what the script began
	// with. Nil for Argv. It holds every secret the command was given.
	Env map[string]string
	// Tail is the last output, at most TailBytes, not redacted.
	Tail []byte
	// Duration is the command's time, clean-up included.
	Duration time.Duration
	// Warning is a sentence about something unusual that did not fail the
	// command, such as processes it left behind; empty otherwise.
	Warning string
}

// Entry describes one file, folder or symbolic link.
type Entry struct {
	// Path is relative to the folder asked for (List) or to the root (Stat),
	// with slashes. It may hold any bytes but NUL.
	Path string
	// Mode holds the type (regular, fs.ModeDir or fs.ModeSymlink) and the
	// nine permission bits.
	Mode fs.FileMode
	// Size in bytes; 0 unless it is a regular file.
	Size int64
	// ModTime is when content changed last, to the nanosecond. Programs can
	// set it.
	ModTime time.Time
	// ChangeTime is when content or attributes changed last (ctime). The
	// kernel sets it; an unprivileged program cannot set it back, so an entry
	// with equal ChangeTime, Inode and Size is the same.
	ChangeTime time.Time
	// Inode is the file's number on its file system.
	Inode uint64
	// Link is a symbolic link's target, unresolved; empty otherwise.
	Link string
}

// WriteOptions changes what WriteTree does.
type WriteOptions struct {
	// Clean removes everything from the folder before the first entry is
	// written. Without it, entries are added and replaced.
	Clean bool
}
