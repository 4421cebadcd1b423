package workspace

// Source says what the workspace of a run is made from: the run's arguments.
type Source struct {
	// RepoURL is the repository, as https, http or ssh URL without a password.
	RepoURL string `json:"repo_url"`
	// Commit is the full commit id, 40 hexadecimal digits.
	Commit string `json:"commit"`
	// Branch is the name the commit was pushed to; informational and may be
	// empty. The checkout's HEAD is this branch.
	Branch string `json:"branch"`
}
