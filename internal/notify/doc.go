// Package notify announces the end of a run: to Slack's incoming webhooks, as a
// commit status of GitHub, to webhooks of one's own and to topics of SNS.
//
// Announcements are beside the point of a run: a channel that cannot be reached
// is tried again for a while, then recorded, and nothing else. Each carries a
// key that is equal for equal ends, so that one that was sent twice, because
// the answer was lost, can be told.
package notify
