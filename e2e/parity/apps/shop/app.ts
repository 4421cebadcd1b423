// What a small service looks like.
import { Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { AttributeType, BillingMode, Table } from 'aws-cdk-lib/aws-dynamodb';
import { Rule, Schedule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction } from 'aws-cdk-lib/aws-events-targets';
import { Code, Function as Lambda, Runtime } from 'aws-cdk-lib/aws-lambda';
import { Queue } from 'aws-cdk-lib/aws-sqs';
import { app, env, vary } from '../kit';

const data = vary(new Stack(app, 'shop-data', { env, tags: { team: 'shop' } }));
const table = new Table(data, 'Orders', {
  partitionKey: { name: 'id', type: AttributeType.STRING }, billingMode: BillingMode.PAY_PER_REQUEST, removalPolicy: RemovalPolicy.DESTROY,
});
const api = vary(new Stack(app, 'shop-api', { env }));
const dead = new Queue(api, 'Dead');
new Queue(api, 'Work', { deadLetterQueue: { queue: dead, maxReceiveCount: 3 }, visibilityTimeout: Duration.seconds(60) });
const handler = new Lambda(api, 'Handler', {
  runtime: Runtime.PYTHON_3_12, handler: 'index.handler', code: Code.fromInline('def handler(e, c):\n    return 1\n'), environment: { TABLE: table.tableName },
});
table.grantReadWriteData(handler);
new Rule(api, 'Nightly', { schedule: Schedule.cron({ hour: '3', minute: '0' }), targets: [new LambdaFunction(handler)] });
