import { Stack, Stage } from 'aws-cdk-lib';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stage = new Stage(app, 'stages', { env });
const db = vary(new Stack(stage, 'Db'));
const topic = new Topic(db, 'News');
const api = vary(new Stack(stage, 'Api', { stackName: 'stages-renamed' }));
new StringParameter(api, 'Where', { stringValue: topic.topicArn });
const inner = new Stage(stage, 'Eu');
vary(new Stack(inner, 'Inner', { stackName: 'stages-inner' }));
