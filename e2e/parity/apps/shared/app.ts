import { CfnOutput, Stack } from 'aws-cdk-lib';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const data = vary(new Stack(app, 'shared-data', { env }));
const queue = new Queue(data, 'Orders');
const api = vary(new Stack(app, 'shared-api', { env }));
new StringParameter(api, 'Where', { stringValue: queue.queueArn });
const web = vary(new Stack(app, 'shared-web', { env }));
web.addDependency(api);
new CfnOutput(web, 'Named', { value: 'x', exportName: 'shared-web-named' });
