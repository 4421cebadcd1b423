// Asks for context that is in no file.
import { Stack } from 'aws-cdk-lib';
import { StringParameter } from 'aws-cdk-lib/aws-ssm';
import { app, env, vary } from '../kit';

const stack = vary(new Stack(app, 'lookup', { env }));
const version = StringParameter.valueFromLookup(stack, '/cdk-bootstrap/hnb659fds/version');
new StringParameter(stack, 'Copy', { stringValue: version });
new StringParameter(stack, 'Zones', { stringValue: stack.availabilityZones.join(' ') });
