package main

// titles are the properties of the founding document, in its order: Property 1
// is the first. The tests name them by number and title.
func titles() []string {
	return []string{
		"Git commit extraction",
		"Repository cloning at specific commit",
		"Build command execution",
		"Artifact tagging",
		"Artifact storage and retrieval",
		"WorkflowTemplate generation from configuration",
		"Self-modification visibility",
		"Environment configuration schema compliance",
		"Stack deployment ordering",
		"CDK stack synthesis completeness",
		"Stack output capture",
		"Test command execution",
		"Test result capture",
		"Cross-account role assumption",
		"Credential absence in configuration",
		"Workflow metadata recording",
		"Deployment metrics emission",
		"Notification delivery",
		"Configuration schema validation",
		"AWS credential validation",
		"CDK context validation",
		"Build tool validation",
		"Just-in-time synthesis",
		"Stage output propagation",
		"Commit-specific CDK code usage",
		"Cluster resource isolation",
		"Pipeline destruction cleanup",
	}
}

// toCome is what a property still lacks, by number: parts that need what aphex
// does not do yet.
func toCome() map[int]string {
	return map[int]string{
		1:  "from a push event of the git host (Argo Events)",
		27: "of a whole pipeline, by a command of its own",
	}
}
