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

func (f *finder) statements(list []*syntax.Stmt) {
	for _, s := range list {
		if f.stop {
			return
		}
		f.command(s.Cmd)
	}
}

// command visits what is certain to run.
func (f *finder) command(cmd syntax.Command) {
	switch c := cmd.(type) {
	case nil, *syntax.TestClause, *syntax.ArithmCmd, *syntax.LetClause: // redirections and built-in tests
	case *syntax.CallExpr:
		f.call(c)
	case *syntax.DeclClause:
		f.assignments(c.Args)
	case *syntax.FuncDecl:
		if c.Name != nil {
			f.functions[c.Name.Value] = true
		}
	case *syntax.BinaryCmd:
		f.command(c.X.Cmd)
		if f.stop {
			return
		}
		if c.Op == syntax.OrStmt { // whether the right side runs is open
			f.stop = true
			return
		}
		f.command(c.Y.Cmd)
	case *syntax.Block:
		f.statements(c.Stmts)
	case *syntax.Subshell:
		f.statements(c.Stmts)
	case *syntax.TimeClause:
		if c.Stmt != nil {
			f.command(c.Stmt.Cmd)
		}
	case *syntax.IfClause:
		f.statements(c.Cond)
		f.stop = true
	case *syntax.WhileClause:
		f.statements(c.Cond)
		f.stop = true
	default:
		f.stop = true
	}
}

func (f *finder) assignments(list []*syntax.Assign) {
	for _, a := range list {
		if a.Name != nil && a.Name.Value == "PATH" {
			f.stop = true
		}
	}
}

func (f *finder) call(c *syntax.CallExpr) {
	if f.assignments(c.Assigns); f.stop {
		return
	}
	args := c.Args
	for len(args) > 0 {
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
		return
	}
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
