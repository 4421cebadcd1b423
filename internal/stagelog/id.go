package stagelog

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/record"
)

// ID is one attempt at a stage of a run.
type ID struct {
	// RunUID is the Workflow's UID.
	RunUID string
	// Stage and Environment are as in a step body.
	Stage, Environment string
	// Epoch separates the tries of a run, as in the journal's keys.
	Epoch string
	// Attempt counts from 0 within an epoch.
	Attempt int
}

// Key is the object key of the complete log.
func (id ID) Key() string { return completePrefix(id.RunUID) + id.path() + extension }

const extension = ".log"

func completePrefix(uid string) string { return "runs/" + uid + "/logs/" }
func livePrefix(uid string) string     { return "live/" + uid + "/" }

// path names the attempt within its run: "deploy-env-dev/20261124T060000Z-0".
func (id ID) path() string {
	return record.StageName(id.Stage, id.Environment) + "/" + record.TryName(id.Epoch, id.Attempt)
}

// part is one object of a log that is being written: the bytes from offset on
// of what the start-th process wrote.
type part struct {
	start  int
	offset int64
	size   int64
	key    string
}

func (id ID) partKey(start int, offset int64) string {
	return fmt.Sprintf("%s%s/%04d-%012d%s", livePrefix(id.RunUID), id.path(), start, offset, extension)
}

// parsePart reads the numbers of a part's name, the last element of its key.
func parsePart(name string) (start int, offset int64, ok bool) {
	first, second, found := strings.Cut(strings.TrimSuffix(name, extension), "-")
	start, err := strconv.Atoi(first)
	if err != nil || !found {
		return 0, 0, false
	}
	offset, err = strconv.ParseInt(second, 10, 64)
	return start, offset, err == nil
}
