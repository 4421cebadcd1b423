// A parameter whose value is read from SSM each time a change set is made.
import { Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'resolved', { env }));
const version = StringParameter.valueForStringParameter(stack, '/cdk-bootstrap/hnb659fds/version');
new StringParameter(stack, 'Copy', { stringValue: version });
