module github.com/aphex-pipeline/aphex/hack/pause

go 1.26.0
