package commands

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// FirstProgram returns the first program that running command is bound to look
// up in PATH: "npm" for `cd app && NODE_ENV=test npm ci`. Shell builtins are
// passed over. ok is false where nothing can be said before it runs: the
// program comes from the checkout (./gradlew), from a variable, a function or a
// file that is sourced, PATH is changed before it, it depends on a condition,
// there is none at all, or the text cannot be parsed (bash will say why).
//
// The right side of && is bound to run where the left side cannot fail
// (`export A=b && npm ci`), or fails by mistake only (`cd app && npm ci`). What
// is asked for an answer may say no: `[ -f yarn.lock ] && yarn` says nothing of
// yarn. Where a failure is provided for (left of ||, behind if, while and !), a
// program may be missing on purpose: `yarn --version || npm i -g yarn`.
func FirstProgram(command string) (name string, ok bool) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(command), "")
	if err != nil {
		return "", false
	}
	f := &finder{functions: map[string]bool{}}
	f.statements(file.Stmts)
	return f.name, f.name != ""
}

// finder walks in the order of execution until it has a name or must stop.
type finder struct {
	functions map[string]bool
	name      string
	stop      bool
}

// outcome is how what a finder has passed over may end, the worst last.
type outcome int

const (
	mistake outcome = iota // it fails by mistake only, if at all
	answer                 // it may fail on purpose
)

func (f *finder) statements(list []*syntax.Stmt) outcome {
	worst := mistake
	for _, s := range list {
		if f.stop {
			break
		}
		worst = max(worst, f.statement(s))
	}
	return worst
}

func (f *finder) statement(s *syntax.Stmt) outcome {
	if s.Negated {
		f.command(s.Cmd)
		f.name = "" // without it the script goes on
		return answer
	}
	return max(f.command(s.Cmd), redirections(s.Redirs))
}

// command visits what is certain to run.
func (f *finder) command(cmd syntax.Command) outcome {
	switch c := cmd.(type) {
	case nil:
		return mistake
	case *syntax.FuncDecl:
		if c.Name != nil {
			f.functions[c.Name.Value] = true
		}
		return mistake
	case *syntax.TestClause, *syntax.ArithmCmd, *syntax.LetClause:
		return answer
	case *syntax.CallExpr:
		return f.call(c)
	case *syntax.DeclClause:
		return f.declaration(c)
	case *syntax.BinaryCmd:
		return f.both(c)
	case *syntax.Block:
		return f.statements(c.Stmts)
	case *syntax.Subshell:
		return f.statements(c.Stmts)
	case *syntax.TimeClause:
		if c.Stmt != nil {
			return f.statement(c.Stmt)
		}
		return mistake
	}
	f.stop = true
	return answer
}

// both visits a list of two or a pipeline.
func (f *finder) both(c *syntax.BinaryCmd) outcome {
	if c.Op == syntax.OrStmt { // the left side may fail, whether the right one runs is open
		f.stop = true
		return answer
	}
	left := f.statement(c.X)
	_, timed := c.Y.Cmd.(*syntax.TimeClause)
	switch {
	case c.Op == syntax.AndStmt && left == answer,
		c.Op != syntax.AndStmt && timed: // behind | bash takes time for a program
		f.stop = true
	}
	if f.stop {
		return answer
	}
	return max(left, f.statement(c.Y))
}

// declaration visits export, declare and their kin.
func (f *finder) declaration(c *syntax.DeclClause) outcome {
	f.assignments(c.Args)
	for _, a := range c.Args {
		if a.Name == nil && a.Value != nil {
			f.stop = f.stop || setsPath(a.Value)
			if how, ok := literal(a.Value); !ok || strings.ContainsAny(how, "fFp") {
				return answer // it asks what is declared
			}
		}
	}
	return mistake // in a name, or the variable is read-only
}

// setsPath reports whether a word is PATH=… in quotes, which the parser takes
// for no assignment.
func setsPath(word *syntax.Word) bool {
	sets := false
	syntax.Walk(word, func(node syntax.Node) bool {
		text := ""
		switch n := node.(type) {
		case *syntax.Lit:
			text = n.Value
		case *syntax.SglQuoted:
			text = n.Value
		}
		sets = sets || strings.HasPrefix(text, "PATH=") || strings.HasPrefix(text, "PATH+=")
		return true
	})
	return sets
}

// assignments stops at a change of PATH. A command whose output is assigned
// makes the assignment's status its own.
func (f *finder) assignments(list []*syntax.Assign) outcome {
	ends := mistake
	for _, a := range list {
		if a.Name != nil && a.Name.Value == "PATH" {
			f.stop = true
		}
		syntax.Walk(a, func(node syntax.Node) bool {
			switch node.(type) {
			case *syntax.CmdSubst, *syntax.ProcSubst:
				ends = answer
			}
			return true
		})
	}
	return ends
}

func (f *finder) call(c *syntax.CallExpr) outcome {
	ends := f.assignments(c.Assigns)
	if f.stop || len(c.Args) == 0 {
		return ends
	}
	args := c.Args
	for {
		name, ok := literal(args[0])
		switch {
		case !ok, f.functions[name], strings.Contains(name, "/") && !strings.HasPrefix(name, "/"), opaque(name):
			f.stop = true
		case (name == "exec" || name == "command") && len(args) > 1 && !option(args[1]):
			args = args[1:]
			continue
		case name == "exit" || name == "return" || name == "exec" && len(args) > 1:
			f.stop = true
		case !builtin(name):
			f.name, f.stop = name, true
		}
		return builtinEnds(name, args[1:])
	}
}

// builtinEnds says how a builtin may end.
func builtinEnds(name string, args []*syntax.Word) outcome {
	switch name {
	case ":", "true", "cd", "echo", "exec", "popd", "printf", "pushd", "pwd", "set", "trap", "ulimit", "umask", "unset":
		return mistake
	case "shopt": // without -s and -u it asks
		if len(args) > 0 {
			if how, _ := literal(args[0]); how == "-s" || how == "-u" {
				return mistake
			}
		}
	}
	return answer
}

// redirections says how a statement's redirections may end. Writing to a file
// fails by mistake; reading one, and connecting, may be a question.
func redirections(list []*syntax.Redirect) outcome {
	for _, r := range list {
		var target string
		if lit, ok := r.Word.Parts[0].(*syntax.Lit); ok { // what follows it may be a variable
			target = lit.Value
		}
		switch {
		case r.Op == syntax.DplOut, r.Op == syntax.DplIn, target == "/dev/null":
		case r.Op == syntax.RdrIn, r.Op == syntax.RdrInOut, strings.HasPrefix(target, "/dev/"):
			return answer
		}
	}
	return mistake
}

// option reports whether a word starts with a dash or may do so.
func option(word *syntax.Word) bool {
	text, ok := literal(word)
	return !ok || strings.HasPrefix(text, "-")
}

// literal returns a word that is the same whatever happens.
func literal(word *syntax.Word) (string, bool) {
	var b strings.Builder
	for _, part := range word.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			if strings.ContainsAny(p.Value, `\*?[{~`) && p.Value != "[" {
				return "", false
			}
			b.WriteString(p.Value)
		case *syntax.SglQuoted:
			if p.Dollar {
				return "", false
			}
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			for _, inner := range p.Parts {
				lit, ok := inner.(*syntax.Lit)
				if !ok || strings.Contains(lit.Value, `\`) {
					return "", false
				}
				b.WriteString(lit.Value)
			}
		default:
			return "", false
		}
	}
	return b.String(), b.Len() > 0
}

// opaque builtins can define functions or change PATH in ways not seen here.
func opaque(name string) bool {
	switch name {
	case ".", "source", "eval", "alias", "enable", "hash":
		return true
	}
	return false
}

// builtin reports whether bash itself does name. Source: bash(1), SHELL BUILTIN
// COMMANDS, version 5.2.
func builtin(name string) bool {
	switch name {
	case ":", "[", "bg", "bind", "break", "builtin", "caller", "cd", "command", "compgen", "complete", "compopt", "continue",
		"dirs", "disown", "echo", "exec", "false", "fc", "fg", "getopts", "help", "history", "jobs", "kill", "let", "logout", "mapfile",
		"popd", "printf", "pushd", "pwd", "read", "readarray", "set", "shift", "shopt", "suspend", "test", "times", "trap", "true", "type", "ulimit", "umask",
		"unalias", "unset", "wait":
		return true
	}
	return false
}
