package notify_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/notify"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
	"github.com/aphex-pipeline/aphex/internal/record"
)

func stage(name, environment string, status record.Status, reason, message string) record.Stage {
	s := record.Stage{StageName: record.StageName(name, environment), Stage: name, Environment: environment, Status: status, Reason: reason}
	if status == record.Failed {
		s.ErrorMessage = &message
	} else {
		s.Message = message
	}
	return s
}

func endedRun(status record.Status, stages ...record.Stage) record.Run {
	at := time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)
	return record.Run{
		WorkflowID: "uid-1", WorkflowName: "shop-x1", Namespace: "team", Pipeline: "shop", CommitSHA: commit, Branch: "main",
		TriggeredAt: at, CompletedAt: new(at.Add(95 * time.Second)), Status: status, Stages: stages,
	}
}

// Each filter hears of the ends that it names, and a change of the pipeline
// that is not in force is one whatever else came of the run.
func TestAnnounce_TellsOfDeferredChanges(t *testing.T) {
	t.Parallel()
	broken := stage("deploy-pipeline", "", record.Failed, "SynthFailed", "cdk synth failed")
	waits := stage("deploy-pipeline", "", record.Succeeded, "TopologyDeferred", "added, waits for the next run: deploy-prod")
	fine := stage("deploy-pipeline", "", record.Succeeded, "", "unchanged")
	deployed := stage("deploy-env", "dev", record.Succeeded, "", "1 stack")
	failed := stage("deploy-env", "dev", record.Failed, "StackFailed", "no")
	for name, tt := range map[string]struct {
		run   record.Run
		event string
		told  []string // of succeeded, failed and deferred
		title string
	}{
		"nothing to say":      {endedRun(record.Succeeded, fine, deployed), "succeeded", []string{"succeeded"}, ":white_check_mark: shop succeeded"},
		"its change failed":   {endedRun(record.Succeeded, broken, deployed), "deferred", []string{"succeeded", "failed", "deferred"}, ":warning: shop succeeded, its own change failed"},
		"its change waits":    {endedRun(record.Succeeded, waits, deployed), "deferred", []string{"succeeded", "deferred"}, ":warning: shop succeeded, its new stages wait for the next run"},
		"both failed":         {endedRun(record.Failed, broken, failed), "failed", []string{"failed", "deferred"}, ":x: shop failed at deploy-env-dev"},
		"failed, and waits":   {endedRun(record.Failed, waits, failed), "failed", []string{"failed", "deferred"}, ":x: shop failed at deploy-env-dev"},
		"failed, all applied": {endedRun(record.Failed, fine, failed), "failed", []string{"failed"}, ":x: shop failed at deploy-env-dev"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t)
			var channels []pipeline.Notification
			for _, event := range []string{pipeline.EventSucceeded, pipeline.EventFailed, pipeline.EventDeferred} {
				f.secrets["ssm:/"+event] = f.url + "/" + event
				channels = append(channels, pipeline.Notification{Type: pipeline.NotifySlack, Target: "ssm:/" + event, Events: []string{event}})
			}
			e := notify.NewEvent(tt.run, "1", "", "")
			require.Equal(t, tt.event, e.Event)
			_, got := f.announce(e, channels...)
			require.Len(t, got, len(tt.told))
			for _, event := range tt.told {
				require.Len(t, got["/"+event], 1, event)
				var message struct {
					Text string `json:"text"`
				}
				require.NoError(t, json.Unmarshal([]byte(got["/"+event][0].body), &message))
				require.Equal(t, tt.title, message.Text)
			}
		})
	}
}

// A commit is a success once it is delivered, and nothing else is.
func TestAnnounce_CommitStatus(t *testing.T) {
	t.Parallel()
	const handedOver = "dev: handed over to run shop-x1-successor, passed over here"
	older := stage("deploy-env", "dev", record.Succeeded, "Superseded", "dev: a newer commit is deployed")
	for name, tt := range map[string]struct {
		run                record.Run
		state, description string
	}{
		"delivered": {endedRun(record.Succeeded, stage("deploy-env", "dev", record.Succeeded, "", "fine")), "success", "succeeded in 1m35s"},
		"handed over": {endedRun(record.Succeeded, stage("deploy-pipeline", "", record.Succeeded, "HandedOver", "long"),
			stage("deploy-env", "dev", record.Succeeded, "HandedOver", handedOver)), "pending", handedOver},
		"replaced":   {endedRun(record.Succeeded, stage("validate", "", record.Succeeded, "StaleTopology", "run shop-x2 replaces it")), "pending", "run shop-x2 replaces it"},
		"superseded": {endedRun(record.Succeeded, older), "pending", "dev: a newer commit is deployed"},
		"superseded in part": {
			endedRun(record.Succeeded, older, stage("deploy-env", "prod", record.Succeeded, "", "fine")),
			"success", "succeeded in 1m35s",
		},
		"superseded, then failed": {
			endedRun(record.Failed, older, stage("deploy-env", "prod", record.Failed, "StackFailed", "no")),
			"failure", "deploy-env-prod failed: no",
		},
		"its change failed": {endedRun(record.Succeeded, stage("deploy-pipeline", "", record.Failed, "SynthFailed", "cdk synth failed"),
			stage("deploy-env", "dev", record.Succeeded, "", "fine")), "success", "succeeded in 1m35s, its own change failed: cdk synth failed"},
		"nothing known": {endedRun(record.Failed), "failure", "failed after 1m35s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFar(t)
			f.secrets["ssm:/x"] = "token-1234567"
			tt.run.RepoURL = f.url + "/team/shop.git"
			_, got := f.announce(notify.NewEvent(tt.run, "1", "", ""), pipeline.Notification{Type: pipeline.NotifyGitHub, Target: "ssm:/x"})
			var status struct {
				State       string `json:"state"`
				Description string `json:"description"`
			}
			require.NoError(t, json.Unmarshal([]byte(got["/api/v3/repos/team/shop/statuses/"+commit][0].body), &status))
			require.Equal(t, tt.state, status.State)
			require.Equal(t, tt.description, status.Description)
		})
	}
}

func TestAnnounce_SaysThatThereIsNoRecord(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.secrets["ssm:/slack"] = f.url + "/slack"
	e := notify.NewEvent(endedRun(record.Failed), "1", "", "")
	e.RecordError = "the bucket <shop> is gone"
	_, got := f.announce(e, pipeline.Notification{Type: pipeline.NotifySlack, Target: "ssm:/slack"})
	require.Contains(t, got["/slack"][0].body, `*The record could not be written*: the bucket \u0026lt;shop\u0026gt; is gone`)
}
